# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest's memory is cut up and backed: NUMA nodes, a DIMM, the PCI hole, huge pages.

Each of these makes more RAMBlocks, or moves the border between guest frames and
offsets in a block; the migration must get every one of them right.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.guest.devices.base import option
from harness.guest.devices.dimm import Dimm, SharedMemory, VirtioMemory

MIB: Final = 1 << 20


#: QEMU's name of the RAM that begins somewhere in a file.
OFFSET_RAM: Final = "freepage-ram"


@dataclass(frozen=True, slots=True)
class FileWithOffset:
    """RAM of ``size`` bytes that begins at ``offset`` of a file, for which libvirt has no words."""

    file: Path
    size: int
    offset: int
    share: bool
    prealloc: bool

    def arguments(self) -> Iterator[str]:
        """Libvirt makes RAM of its own besides, which no machine uses and nobody touches."""
        switches = f"share={_switch(self.share)},prealloc={_switch(self.prealloc)}"
        yield from (
            "-object",
            f"memory-backend-file,id={OFFSET_RAM},mem-path={option(self.file)},size={self.size},"
            f"offset={self.offset},{switches},x-use-canonical-path-for-ramblock-id=off",
        )
        # Merged with libvirt's own -machine.
        yield from ("-machine", f"memory-backend={OFFSET_RAM}")


def _switch(value: bool) -> str:
    return "on" if value else "off"


@dataclass(frozen=True, slots=True)
class HostBacking:
    """What the RAM is made of.  ``type``: as libvirt's ``<source type=...>``; None: the host's choice."""

    type: str | None = None
    share: bool = True
    prealloc: bool = False
    #: Size of a huge page in bytes; None: plain pages.
    page: int | None = None


#: RAM in files that others can map.
MAPPABLE: Final = HostBacking()


@dataclass(frozen=True, slots=True)
class MemoryShape:
    """All sizes in bytes.  The default is one RAMBlock."""

    nodes: int = 1
    dimm: int | None = None
    below_4g: int | None = None
    hugepages: bool = False
    shared: SharedMemory | None = None
    backing: HostBacking = MAPPABLE
    at_offset: FileWithOffset | None = None
    device: VirtioMemory | None = None
    #: Sizes of NVDIMMs, which are devices of the scenario's.
    nvdimms: tuple[int, ...] = ()

    @property
    def numa(self) -> bool:
        """Whether the guest is told of nodes; libvirt plugs a DIMM only into one."""
        plugged = (self.dimm, self.shared, self.device)
        return self.nodes > 1 or bool(self.nvdimms) or any(one is not None for one in plugged)

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
        if self.at_offset is not None:
            yield from self.at_offset.arguments()


ONE_BLOCK: Final = MemoryShape()


def add_maximum(root: ET.Element, shape: MemoryShape, memory: int) -> None:
    """Room for what is plugged in."""
    sizes = (
        shape.dimm or 0,
        shape.shared.size if shape.shared else 0,
        shape.device.size if shape.device else 0,
        *shape.nvdimms,
    )
    if plugged := sum(sizes):
        slots = sum(size > 0 for size in sizes)
        maximum = ET.SubElement(root, "maxMemory", {"slots": str(slots), "unit": "b"})
        maximum.text = str(memory + plugged)


def add_backing(root: ET.Element, shape: MemoryShape, ram: str) -> None:
    """RAM in shared files, unless the scenario says otherwise.

    Those the harness can read while QEMU runs, and after it has gone.
    """
    backing, wanted = ET.SubElement(root, "memoryBacking"), shape.backing
    if shape.hugepages or wanted.page is not None:
        pages = ET.SubElement(backing, "hugepages")
        if wanted.page is not None:
            ET.SubElement(pages, "page", {"size": str(wanted.page // 1024), "unit": "KiB"})
    ET.SubElement(backing, "source", {"type": wanted.type or ("memfd" if shape.nameless else ram)})
    ET.SubElement(backing, "access", {"mode": "shared" if wanted.share else "private"})
    if wanted.prealloc or not (shape.hugepages or wanted.page):
        ET.SubElement(backing, "allocation", {"mode": "immediate" if wanted.prealloc else "ondemand"})


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
