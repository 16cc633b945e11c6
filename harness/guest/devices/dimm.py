# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that comes in a DIMM: plugged into a guest that runs, or mapped by both hosts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.guest.devices.base import DomainDevice, option

#: QEMU's name of the DIMM that both hosts map.
SHARED: Final = "shared"


@dataclass(frozen=True, slots=True)
class Dimm(DomainDevice):
    """A DIMM that is plugged in once the guest runs.  ``size`` in bytes."""

    size: int

    def elements(self) -> Iterator[ET.Element]:
        """The device, for the node that there always is."""
        device, _ = _memory("dimm", self.size)
        yield device


@dataclass(frozen=True, slots=True)
class SharedMemory(DomainDevice):
    """A DIMM in a file that both hosts map.  ``size`` in bytes."""

    file: Path
    size: int

    def arguments(self) -> Iterator[str]:
        """Libvirt puts every DIMM into a file of the host's own, so it is not told of this one."""
        memory = f"memory-backend-file,id={SHARED},mem-path={option(self.file)},size={self.size},share=on"
        yield from ("-object", memory)
        yield from ("-device", f"pc-dimm,id={SHARED}-dimm,memdev={SHARED}")


#: The name of the virtio-mem device for libvirt, which leaves "ua-" to its users, and so for QEMU.
VIRTIO_MEM: Final = "ua-freepage-virtio-mem"


@dataclass(frozen=True, slots=True)
class VirtioMemory(DomainDevice):
    """A virtio-mem device.  All in bytes; ``requested``: what the guest is to have plugged in."""

    size: int
    block: int
    requested: int

    def elements(self) -> Iterator[ET.Element]:
        """The device, for the node that there always is."""
        device, target = _memory("virtio-mem", self.size)
        ET.SubElement(target, "block", {"unit": "b"}).text = str(self.block)
        ET.SubElement(target, "requested", {"unit": "b"}).text = str(self.requested)
        ET.SubElement(device, "alias", {"name": VIRTIO_MEM})
        yield device


def _memory(model: str, size: int) -> tuple[ET.Element, ET.Element]:
    """A device that is memory of the first node, and its target, which may have more to say."""
    device = ET.Element("memory", {"model": model})
    target = ET.SubElement(device, "target")
    ET.SubElement(target, "size", {"unit": "b"}).text = str(size)
    ET.SubElement(target, "node").text = "0"
    return device, target
