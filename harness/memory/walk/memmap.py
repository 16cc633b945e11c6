# SPDX-License-Identifier: GPL-2.0-or-later
"""The memmap: one ``struct page`` a frame, section by section.

    for section in sections(space, kernel):
        pages = read_section(...)          # (frames, SIZE(page)) bytes
        pages.words("flags")

``mem_section`` says which sections there are.  The memmap of a section is found
through the kernel's page tables, as is everything, so it does not matter how it
is mapped, or whether parts of it are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.memory.walk.errors import WalkError
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.pages import PageViews
from harness.memory.walk.pagetables import AddressSpace
from harness.units import PAGE_SIZE

#: Bits of mem_section.section_mem_map below the address.
_HAS_MEM_MAP = 1 << 1
_ONLINE = 1 << 2
#: The address is that of a page of memory, whatever the kernel keeps below it.
_MAP = ~(PAGE_SIZE - 1)
#: No machine of this kind has more sections: 52 address bits in sections of 128 MiB.
_MOST_ROOTS = 1 << 17


@dataclass(frozen=True, slots=True)
class MemmapSection:
    """Some frames, and whether the kernel's page allocator has them."""

    first: int
    frames: int
    online: bool


@dataclass(frozen=True, eq=False)
class MemMap:
    """Where the memmap is: page ``n`` is at ``base + n * size``."""

    base: int
    size: int
    sections: tuple[MemmapSection, ...]

    def address(self, frame: int) -> int:
        """Of the page of a frame."""
        return self.base + frame * self.size


def find_memmap(space: AddressSpace, kernel: KernelLayout, frames: int) -> MemMap:
    """Read ``mem_section``; ``frames`` (pages of the kernel's) is how many there can be memory behind."""
    layout, info = kernel.layout, kernel.info
    per_section = 1 << (layout.section_bits - kernel.tables.page_shift)
    per_root = kernel.page_size // layout.section_size
    count = info.length("mem_section")
    if not 0 < count <= _MOST_ROOTS:
        raise WalkError("vmcoreinfo", f"VMCOREINFO of {info.release}", f"LENGTH(mem_section) is {count}")
    roots = space.words(info.symbol("mem_section"), count, "mem_section")
    sections: list[MemmapSection] = []
    bases: dict[int, int] = {}
    for number, encoded in _present(space, kernel, roots, per_root):
        first = number * per_section
        if first >= frames:
            if encoded & _ONLINE:
                raise WalkError(
                    "outside-memory",
                    f"section {number}",
                    f"the kernel uses memory at {first * kernel.page_size:#x}, which is in no known file",
                )
            continue
        online = bool(encoded & _ONLINE)
        if online:
            bases.setdefault(encoded & _MAP, number)
        sections.append(MemmapSection(first, min(per_section, frames - first), online))
    return MemMap(_the_base(kernel, bases), layout.page.size, tuple(sections))


def _present(
    space: AddressSpace, kernel: KernelLayout, roots: list[int], per_root: int
) -> Iterator[tuple[int, int]]:
    """(number, section_mem_map) of every section with a memmap."""
    layout = kernel.layout
    for number, root in enumerate(roots):
        if not root:
            continue
        content = space.read(root, per_root * layout.section_size, f"mem_section[{number}]")
        table = np.frombuffer(content, dtype=np.uint8).reshape(per_root, layout.section_size)
        maps = table[:, layout.section_map : layout.section_map + 8].copy().view("<u8")[:, 0]
        for index in np.flatnonzero(maps & np.uint64(_HAS_MEM_MAP)).tolist():
            yield number * per_root + index, int(maps[index])


def _the_base(kernel: KernelLayout, bases: dict[int, int]) -> int:
    """All sections must agree about where the page of frame 0 would be: that is what vmemmap means."""
    if len(bases) != 1:
        told = ", ".join(f"{base:#x} (section {number})" for base, number in list(bases.items())[:4])
        raise WalkError(
            "memmap",
            f"mem_section of the kernel {kernel.info.release}",
            f"the memmap is not in one place: {told}" if bases else "no section is online",
            hint="a kernel without CONFIG_SPARSEMEM_VMEMMAP cannot be walked" if bases else None,
        )
    base = next(iter(bases))
    said = kernel.info.get("SYMBOL", "vmemmap")
    if said is not None and said != base:
        problem = f"says that the memmap is at {base:#x}, VMCOREINFO says {said:#x}"
        raise WalkError("memmap", "mem_section", problem)
    return base


def read_section(
    space: AddressSpace,
    kernel: KernelLayout,
    memmap: MemMap,
    section: MemmapSection,
    buffer: npt.NDArray[np.uint8],
) -> PageViews:
    """The pages of a section, into a buffer that :func:`section_buffer` made."""
    start = memmap.address(section.first)
    lead = start % PAGE_SIZE
    length = section.frames * memmap.size
    rows = buffer[: -(-(lead + length) // PAGE_SIZE)]
    where = f"the memmap of section {section.first * kernel.page_size >> kernel.layout.section_bits}"
    missing = np.zeros(section.frames, dtype=np.bool_)
    for first, end in space.read_pages(start - lead, rows, where):
        low = max(0, first * PAGE_SIZE - lead) // memmap.size
        missing[low : -(-(end * PAGE_SIZE - lead) // memmap.size)] = True
    content = rows.reshape(-1)[lead : lead + length].reshape(section.frames, memmap.size)
    return PageViews(section.first, content, missing)


def section_buffer(kernel: KernelLayout) -> npt.NDArray[np.uint8]:
    """Room for the memmap of one section, whatever its alignment."""
    length = (1 << (kernel.layout.section_bits - kernel.tables.page_shift)) * kernel.layout.page.size
    return np.empty((length // PAGE_SIZE + 2, PAGE_SIZE), dtype=np.uint8)
