# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's disk."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.guest.devices.base import DomainDevice


@dataclass(frozen=True, slots=True)
class Disk(DomainDevice):
    """A virtio disk that both hosts see.

    Read-only, it may be open in both QEMUs at once, whatever is cached where.
    Written to, it must not be: the one that gives it up has to have written all
    before the other reads, so nothing may stay in a host's page cache.
    """

    path: Path
    kind: Literal["raw", "qcow2"] = "raw"
    readonly: bool = True
    #: What the guest discards is given back to the host.
    discard: bool = False
    #: What libvirt calls it: ``vda`` is the first, and the one from which a machine boots.
    target: Literal["vda", "vdb"] = "vda"

    def elements(self) -> Iterator[ET.Element]:
        """A virtio disk."""
        element = ET.Element("disk", {"type": "file", "device": "disk"})
        driver = {"name": "qemu", "type": self.kind}
        if not self.readonly:
            driver["cache"] = "none"
        if self.discard:
            driver["discard"] = "unmap"
        ET.SubElement(element, "driver", driver)
        ET.SubElement(element, "source", {"file": str(self.path)})
        ET.SubElement(element, "target", {"dev": self.target, "bus": "virtio"})
        if self.readonly:
            ET.SubElement(element, "readonly")
        yield element

    def reattach(self, devices: ET.Element) -> None:
        """Its path on this host."""
        if (source := devices.find(f"disk/target[@dev='{self.target}']/../source")) is not None:
            source.set("file", str(self.path))
