# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk as libvirt has it, for what only libvirt does with one: copying it, plugging it in and out."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from harness.scenario.devices.base import DeviceContext

#: The first letters are those of the disks that a workload, or an image of the user's, brings.
_FIRST: Final = 2


def target_of(context: DeviceContext) -> str:
    """What libvirt calls the disk, such as ``vdc``."""
    return f"vd{string.ascii_lowercase[_FIRST + context.number]}"


def disk_element(
    context: DeviceContext, path: Path, kind: str, *, cache: str, discard: bool, alias: str | None = None
) -> ET.Element:
    """The disk, at the slot that is this device's own; ``alias`` where nobody adds one later."""
    element = ET.Element("disk", {"type": "file", "device": "disk"})
    driver = {"name": "qemu", "type": kind, "cache": cache, "discard": "unmap" if discard else "ignore"}
    ET.SubElement(element, "driver", driver)
    ET.SubElement(element, "source", {"file": str(path)})
    ET.SubElement(element, "target", {"dev": target_of(context), "bus": "virtio"})
    place = {"type": "pci", "domain": "0x0000", "bus": "0x00", "function": "0x0"}
    ET.SubElement(element, "address", {**place, "slot": f"{context.slot:#04x}"})
    if alias is not None:
        ET.SubElement(element, "alias", {"name": alias})
    return element
