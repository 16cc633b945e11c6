# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's memory made by hand: page tables, memmap, zones with lists.

    fake = FakeKernel()
    fake.free(0x800, order=3)          # a block on its zone's list
    fake.image(), fake.gpa             # what walk_source() takes

Two stretches of addresses with a hole between them; the second node, where there
are two, has the upper one.  Everything is at another place than in a real kernel,
and structures are of other sizes, so that nothing can be right by habit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.memory.image import BLOCK_PAGES, Words
from harness.memory.walk import GuestMemory
from harness.units import PAGE_SIZE

MIB = 1 << 20
IMAGE = 0xFFFF_FFFF_8000_0000
KASLR = 0x0A00_0000
IMAGE_AT = 2 * MIB  # physical, and 2 MiB of it
LOW = 16 * MIB
HOLE_END = 64 * MIB
HIGH = 8 * MIB
PAGE = 64
FLAGS, LRU, MAPPING, PRIVATE, TYPE, REFCOUNT = 0, 8, 24, 40, 48, 52
SECTION_BITS = 22
NODES = 4
ROOM = 3
ZONE_SIZE = 2048
ZONE_FREE_AREA = 320
ZONE_LOCK = 8
ZONE_SPANNED = 96
ZONE_PAGESET = 104
ORDERS = 11
OFFSETS = {"top": 0, "uts": 0x1000, "node_data": 0x2000, "percpu": 0x3000, "mask": 0x3100, "symbols": 0x10000}
PGDAT_AT, ROOTS_AT, PCP_AT = 4 * MIB, 5 * MIB, 5 * MIB + 0x80000
MEMMAP_AT, TABLES_AT, NOTE_AT = 6 * MIB, 7 * MIB, 3 * PAGE_SIZE
#: The first frame that nothing of the above is in.
FIRST_FREE, FIRST_HIGH = 0x800, HOLE_END // PAGE_SIZE
RELEASE = "9.9.9-fake"
RESERVED, HWPOISON, SWAPBACKED, SLAB_FLAG = 11, 20, 17, 9


class ArrayImage:
    """What a walk needs of an image, without a file."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self.name = "fake"
        self._words = memory.view("<u8").reshape(-1, PAGE_SIZE // 8)
        self.pages = len(self._words)

    def read(self, first: int, count: int) -> Words:
        """Some pages."""
        assert 0 < count <= BLOCK_PAGES
        assert 0 <= first <= self.pages - count
        return self._words[first : first + count]

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:  # noqa: ARG002
        """All pages."""
        for first in range(0, self.pages, BLOCK_PAGES):
            yield first, self._words[first : first + BLOCK_PAGES]


@dataclass
class FakeKernel:
    """See the module.  What is poked after :meth:`free` is what the image holds."""

    levels: int = 4
    """Of its page tables; three of them with larger pages."""
    nodes: int = 1
    types: int = 5
    numbered: bool = True
    page_size: int = PAGE_SIZE
    """Of a page of the kernel's; frames here are its pages."""
    say: dict[str, str] = field(default_factory=dict)
    """Lines of VMCOREINFO to replace, by what stands before the equals sign; empty: left out."""

    def __post_init__(self) -> None:
        self.memory = np.zeros(LOW + HIGH, dtype=np.uint8)
        self.gpa = [(0, 0, LOW), (HOLE_END, LOW, HIGH)]
        self.direct = {
            3: 0xFFFF_D000_0000_0000,
            4: 0xFFFF_9ABC_0000_0000,
            5: 0xFF12_9ABC_0000_0000,
        }[self.levels]
        self.vmemmap = 0xFFD4_EB40_0000_0000 if self.levels == 5 else 0xFFFF_EB40_0000_0000
        self.first_high = HOLE_END // self.page_size
        self.buddy = 0xF000_0000 if self.numbered else 0xFFFF_FF7F
        self._next_table = TABLES_AT
        self.lists: dict[tuple[int, int, int], list[int]] = {}
        self._page_tables()
        self._fixed()
        self._pages()
        self._zones()
        self.note(self.text())

    def guest(self) -> GuestMemory:
        """Its memory as it is now."""
        return GuestMemory.of([(self.image(), self.gpa)])

    # Physical memory

    def _place(self, address: int) -> int:
        return address if address < LOW else address - HOLE_END + LOW

    def write(self, address: int, content: bytes) -> None:
        """To a physical address."""
        place = self._place(address)
        self.memory[place : place + len(content)] = np.frombuffer(content, dtype=np.uint8)

    def word(self, address: int, value: int, size: int = 8) -> None:
        """To a physical address."""
        self.write(address, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))

    def read(self, address: int, size: int = 8) -> int:
        """From a physical address."""
        place = self._place(address)
        return int.from_bytes(self.memory[place : place + size].tobytes(), "little")

    def image(self) -> ArrayImage:
        """All of it, as it is whenever it is read."""
        return ArrayImage(self.memory)

    # Page tables

    def symbol(self, name: str) -> int:
        """The virtual address of something in the kernel's image."""
        return IMAGE + KASLR + OFFSETS[name]

    def _table(self) -> int:
        self._next_table += self.page_size
        return self._next_table

    def map(self, virtual: int, physical: int, level: int = 1) -> None:
        """One entry at ``level`` (with pages of 4 KiB 1: 4 KiB, 2: 2 MiB, 3: 1 GiB)."""
        shift = self.page_size.bit_length() - 1
        bits = shift - 3  # a table is one page

        def place(table: int, step: int) -> int:
            return table + 8 * (virtual >> (shift + bits * (step - 1)) & (1 << bits) - 1)

        table = IMAGE_AT + OFFSETS["top"]
        for step in range(self.levels, level, -1):
            entry = place(table, step)
            if not self.read(entry):
                self.word(entry, self._table() | 0x63)
            table = self.read(entry) & ~(self.page_size - 1)
        flags = 0x63 | (0x80 if level > 1 else 0)
        # No execution, and for large pages an attribute in bit 12: neither is part of the address.
        self.word(place(table, level), physical | flags | 1 << 63)

    def _page_tables(self) -> None:
        if self.page_size == PAGE_SIZE:
            self.map(IMAGE + KASLR, IMAGE_AT, level=2)
        else:
            for offset in range(0, 2 * MIB, self.page_size):
                self.map(IMAGE + KASLR + offset, IMAGE_AT + offset)
        self.map(self.direct, 0, level=3)

    # Structures

    def _fixed(self) -> None:
        uts = b"".join(name.ljust(65, b"\0") for name in (b"Linux", b"fake", RELEASE.encode()))
        self.write(IMAGE_AT + OFFSETS["uts"] + 8, uts)
        self.word(ROOTS_AT, self.direct + ROOTS_AT + self.page_size)
        for number in range((HOLE_END + HIGH) >> SECTION_BITS):
            start = number << SECTION_BITS
            if start < LOW or start >= HOLE_END:
                self.word(ROOTS_AT + self.page_size + 16 * number, self.vmemmap | 0xF)
        self.word(IMAGE_AT + OFFSETS["node_data"], self.direct + PGDAT_AT)
        if self.nodes == 2:
            self.word(IMAGE_AT + OFFSETS["node_data"] + 16, self.direct + PGDAT_AT + 0x40000)

    def memmap(self, frame: int) -> int:
        """Where the page of a frame is in physical memory."""
        low = LOW // self.page_size
        return MEMMAP_AT + PAGE * (frame if frame < low else frame - self.first_high + low)

    def zone_of(self, frame: int) -> tuple[int, int]:
        """(node, index) of a frame; nodes are 0 and 2."""
        if frame < self.first_high:
            return 0, 0 if frame < 4 * MIB // self.page_size else 1
        return (2, 1) if self.nodes == 2 else (0, 2)

    def _pages(self) -> None:
        """A struct page for every frame, and the mappings of them all."""
        high = self.first_high
        each = 4 * MIB // self.page_size  # zones begin and end at such frames
        for first, end in ((0, LOW // self.page_size), (high, high + HIGH // self.page_size)):
            start, count = self.memmap(first), end - first
            pages = np.zeros((count, PAGE), dtype=np.uint8)
            pages.view("<u4")[:, TYPE // 4] = 0xFFFF_FFFF
            pages.view("<u4")[:, REFCOUNT // 4] = 1
            for offset in range(0, count * PAGE, self.page_size):
                self.map(self.vmemmap + first * PAGE + offset, start + offset)
            for number in range(0, count, each):
                node, zone = self.zone_of(first + number)
                pages.view("<u8")[number : number + each, FLAGS // 8] = node << 62 | zone << 60
            self.memory[start : start + count * PAGE] = pages.reshape(-1)

    def page(self, frame: int, refcount: int = 1, kind: int = 0xFFFF_FFFF, flags: int = 0) -> None:
        """What a page is when nothing else is said of it: the kernel's."""
        start = self.memmap(frame)
        node, zone = self.zone_of(frame)
        self.write(start, bytes(PAGE))
        self.word(start, flags | node << 62 | zone << 60)
        self.word(start + TYPE, kind, 4)
        self.word(start + REFCOUNT, refcount, 4)

    def zone_at(self, node: int, index: int) -> int:
        """The physical address of a zone."""
        return PGDAT_AT + (0x40000 if node else 0) + index * ZONE_SIZE

    def area(self, node: int, index: int, order: int) -> int:
        """The physical address of a free_area."""
        return self.zone_at(node, index) + ZONE_FREE_AREA + order * (16 * self.types + 8)

    def head(self, node: int, index: int, order: int, kind: int) -> int:
        """The physical address of a list's head."""
        return self.area(node, index, order) + 16 * kind

    def _zones(self) -> None:
        fields = ROOM * ZONE_SIZE + 2 * 16 * (NODES * ROOM + 1)
        spans = {(0, 0): 4 * MIB // self.page_size, (0, 1): 12 * MIB // self.page_size}
        spans |= {(2, 1) if self.nodes == 2 else (0, 2): HIGH // self.page_size}
        for node in {node for node, _ in spans}:
            start = self.zone_at(node, 0) + fields
            self.word(start, ROOM, 4)
            self.word(start + 8, 0)
            self.word(start + 16, 0x4000)
            self.word(start + 24, node, 4)
        for (node, index), spanned in spans.items():
            self.word(self.zone_at(node, index) + ZONE_SPANNED, spanned)
            for order in range(ORDERS):
                for kind in range(self.types):
                    head = self.head(node, index, order, kind)
                    for link in (0, 8):
                        self.word(head + link, self.direct + head)

    def free(self, frame: int, order: int = 0, kind: int = 1, zone: tuple[int, int] | None = None) -> None:
        """Put a block at the end of its list, as list_add_tail() does."""
        node, index = zone or self.zone_of(frame)
        for inner in range(frame, frame + (1 << order)):
            self.page(inner, refcount=0)
        start, head = self.memmap(frame), self.head(node, index, order, kind)
        self.word(start + TYPE, self.buddy, 4)
        self.word(start + PRIVATE, order)
        mine, theirs = self.vmemmap + frame * PAGE + LRU, self.direct + head
        last = self.read(head + 8)
        self.word(start + LRU, theirs)
        self.word(start + LRU + 8, last)
        self.word(self.physical(last), mine)
        self.word(head + 8, mine)
        area = self.area(node, index, order) + 16 * self.types
        self.word(area, self.read(area) + 1)

    def link(self, frame: int) -> int:
        """The virtual address of a page's links."""
        return self.vmemmap + frame * PAGE + LRU

    def physical(self, virtual: int) -> int:
        """Of an address in the memmap or the direct map."""
        if self.vmemmap <= virtual < self.vmemmap + (1 << 30):
            frame, rest = divmod(virtual - self.vmemmap, PAGE)
            return self.memmap(frame) + rest
        return virtual - self.direct

    # VMCOREINFO

    def text(self) -> str:
        """What the kernel says of itself."""
        fields = ROOM * ZONE_SIZE + 2 * 16 * (NODES * ROOM + 1)
        area = 16 * self.types + 8
        lines = {
            "OSRELEASE": RELEASE,
            "BUILD-ID": "00ff",
            "PAGESIZE": f"{self.page_size}",
            "SYMBOL(init_uts_ns)": f"{self.symbol('uts'):x}",
            "OFFSET(uts_namespace.name)": "8",
            "SYMBOL(mem_section)": f"{self.direct + ROOTS_AT:x}",
            "LENGTH(mem_section)": "8",
            "SIZE(mem_section)": "16",
            "OFFSET(mem_section.section_mem_map)": "0",
            "NUMBER(SECTION_SIZE_BITS)": f"{SECTION_BITS}",
            "SIZE(page)": f"{PAGE}",
            "SIZE(pglist_data)": f"{fields + 64}",
            "SIZE(zone)": f"{ZONE_SIZE}",
            "SIZE(free_area)": f"{area}",
            "SIZE(list_head)": "16",
            "OFFSET(page.flags)": f"{FLAGS}",
            "OFFSET(page._refcount)": f"{REFCOUNT}",
            "OFFSET(page.mapping)": f"{MAPPING}",
            "OFFSET(page.lru)": f"{LRU}",
            "OFFSET(page._mapcount)": f"{TYPE}",
            "OFFSET(page.private)": f"{PRIVATE}",
            "OFFSET(page.compound_head)": f"{LRU}",
            "OFFSET(pglist_data.node_zones)": "0",
            "OFFSET(pglist_data.nr_zones)": f"{fields}",
            "OFFSET(pglist_data.node_start_pfn)": f"{fields + 8}",
            "OFFSET(pglist_data.node_spanned_pages)": f"{fields + 16}",
            "OFFSET(pglist_data.node_id)": f"{fields + 24}",
            "OFFSET(zone.free_area)": f"{ZONE_FREE_AREA}",
            "OFFSET(zone.spanned_pages)": f"{ZONE_SPANNED}",
            "OFFSET(free_area.free_list)": "0",
            "OFFSET(list_head.next)": "0",
            "OFFSET(list_head.prev)": "8",
            "LENGTH(zone.free_area)": f"{ORDERS}",
            "LENGTH(free_area.free_list)": f"{self.types}",
            "NUMBER(PG_private)": f"{RESERVED + 1}",
            "NUMBER(PG_hwpoison)": f"{HWPOISON}",
            "NUMBER(PG_swapbacked)": f"{SWAPBACKED}",
            "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": f"{self.buddy - (1 << 32)}",
            "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": "-251658240" if self.numbered else "-257",
            "NUMBER(phys_base)": f"{IMAGE_AT - KASLR}",
            "SYMBOL(init_top_pgt)": f"{self.symbol('top'):x}",
            "NUMBER(pgtable_l5_enabled)": f"{int(self.levels == 5)}",
            "SYMBOL(node_data)": f"{self.symbol('node_data'):x}",
            "LENGTH(node_data)": f"{NODES}",
            "KERNELOFFSET": f"{KASLR:x}",
        }
        if self.levels == 3:
            lines["NUMBER(VA_BITS)"] = "47"
        if not self.numbered:
            lines["NUMBER(PG_slab)"] = f"{SLAB_FLAG}"
        lines = {key: value for key, value in (lines | self.say).items() if value}
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def note(self, text: str, address: int = NOTE_AT) -> None:
        """Put VMCOREINFO where the kernel keeps it."""
        self.write(address, struct.pack("<III12s", 11, len(text), 0, b"VMCOREINFO") + text.encode())
