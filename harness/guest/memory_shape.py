# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest's memory is cut up and backed: NUMA nodes, a DIMM, the PCI hole, huge pages.

Each of these makes more RAMBlocks, or moves the border between guest frames and
offsets in a block; the migration must get every one of them right.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.guest.devices.dimm import Dimm, SharedMemory

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class MemoryShape:
    """All sizes in bytes.  The default is one RAMBlock."""

    nodes: int = 1
    dimm: int | None = None
    below_4g: int | None = None
    hugepages: bool = False
    shared: SharedMemory | None = None

    @property
    def numa(self) -> bool:
        """Whether the guest is told of nodes; libvirt plugs a DIMM only into one."""
        return self.nodes > 1 or self.dimm is not None or self.shared is not None

    @property
    def nameless(self) -> bool:
        """Whether the RAM that migrates is in files without names.

        Huge pages need no mount of them, then; and x-ignore-shared leaves out whatever
        is shared and has a name.
        """
        return self.hugepages or self.shared is not None

    def sizes(self, memory: int) -> list[int]:
        """The nodes' sizes: whole MiB, the first with what is left over."""
        each = memory // self.nodes // MIB * MIB
        return [memory - each * (self.nodes - 1), *(each for _ in range(self.nodes - 1))]

    def arguments(self) -> Iterator[str]:
        """QEMU arguments for what libvirt has no words for."""
        if self.below_4g is not None:
            # Merged with libvirt's own -machine.
            yield from ("-machine", f"max-ram-below-4g={self.below_4g}")
        if self.shared is not None:
            yield from self.shared.arguments()


ONE_BLOCK: Final = MemoryShape()


def add_maximum(root: ET.Element, shape: MemoryShape, memory: int) -> None:
    """Room for a DIMM."""
    plugged = shape.dimm if shape.shared is None else shape.shared.size
    if plugged is not None:
        maximum = ET.SubElement(root, "maxMemory", {"slots": "1", "unit": "b"})
        maximum.text = str(memory + plugged)


def add_backing(root: ET.Element, shape: MemoryShape, ram: str) -> None:
    """RAM in files, shared: the harness reads it while QEMU runs and after it has gone."""
    backing = ET.SubElement(root, "memoryBacking")
    if shape.hugepages:
        ET.SubElement(backing, "hugepages")
    ET.SubElement(backing, "source", {"type": "memfd" if shape.nameless else ram})
    ET.SubElement(backing, "access", {"mode": "shared"})
    if not shape.hugepages:
        ET.SubElement(backing, "allocation", {"mode": "ondemand"})


def add_nodes(cpu: ET.Element, shape: MemoryShape, memory: int, vcpus: int) -> None:
    """The nodes, with the vCPUs dealt out among them."""
    if not shape.numa:
        return
    numa = ET.SubElement(cpu, "numa")
    for number, size in enumerate(shape.sizes(memory)):
        cpus = ",".join(str(vcpu) for vcpu in range(number, vcpus, shape.nodes))
        ET.SubElement(
            numa, "cell", {"id": str(number), "cpus": cpus, "memory": str(size // 1024), "unit": "KiB"}
        )


def dimm_xml(shape: MemoryShape) -> str:
    """The DIMM, as a device to be plugged in."""
    (device,) = Dimm(shape.dimm or 0).elements()
    return ET.tostring(device, encoding="unicode")
