# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel virtual addresses, by the kernel's own page tables.

    space = AddressSpace(memory, root, levels=4)
    space.translate(0xffffffff81000000)
    space.read(address, length)

Nothing is known in advance about where the kernel put what: the direct map, the
memmap and the kernel's image are all found the way the processor finds them.
Page tables are the guest's: a table outside of its memory is an error, and what
a walk reads is bounded by what it asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.arch import GUEST, PageTables
from harness.memory.walk.errors import WalkError
from harness.memory.walk.physical import ByteArray, GuestMemory
from harness.units import PAGE_SIZE

#: Tables that are remembered: the image, the memmap and some of the direct map of a large guest.
_REMEMBERED = 2048


@dataclass(frozen=True, slots=True)
class _Run:
    """``length`` bytes from ``virtual`` on are at ``physical``; None: nothing is mapped there."""

    virtual: int
    physical: int | None
    length: int


class AddressSpace:
    """What the page tables below ``root`` map."""

    def __init__(
        self,
        memory: GuestMemory,
        root: int,
        levels: int,
        encryption_mask: int = 0,
        tables: PageTables = GUEST.page_tables,
        address_bits: int | None = None,
    ) -> None:
        """``address_bits``: how many the kernel was built for, where the topmost table may be shorter."""
        if levels not in tables.levels:
            raise ValueError(f"page tables of {levels} levels")
        # The topmost table has an entry for each value of the bits that are left for it, of those that
        # the kernel was built for. What stands above them in an address is all ones.
        left = tables.index_bits
        if address_bits is not None:
            left = address_bits - tables.page_shift - tables.index_bits * (levels - 1)
        self._topmost = min(left, tables.index_bits)
        self.memory = memory
        self.levels = levels
        self._root = root
        # With memory encryption one bit of each entry is no part of the address.
        self._address = tables.address & ~encryption_mask
        self._layout = tables
        self._tables: dict[int, list[int]] = {}

    def canonical(self, virtual: int) -> bool:
        """Whether the processor accepts this as an address."""
        return self._layout.canonical(virtual, self.levels)

    def translate(self, virtual: int) -> int | None:
        """The physical address, or None if nothing is mapped there."""
        return self._step(virtual).physical

    def runs(self, virtual: int, length: int) -> Iterator[_Run]:
        """What lies behind a stretch of addresses, neighbours joined."""
        end, pending = virtual + length, _Run(virtual, None, 0)
        while virtual < end:
            step = self._step(virtual)
            size = min(step.length, end - virtual)
            follows = None if pending.physical is None else pending.physical + pending.length
            if pending.length and step.physical == follows:
                pending = _Run(pending.virtual, pending.physical, pending.length + size)
            else:
                if pending.length:
                    yield pending
                pending = _Run(virtual, step.physical, size)
            virtual += size
        if pending.length:
            yield pending

    def read(self, virtual: int, length: int, what: str) -> bytes:
        """Bytes from a virtual address; ``what`` they are, for the error if they cannot be had."""
        parts = []
        for run in self.runs(virtual, length):
            if run.physical is None:
                raise WalkError("unmapped", what, f"the kernel maps nothing at {run.virtual:#x}")
            self._demand(run.virtual, run.physical, run.length, what)
            parts.append(self.memory.read(run.physical, run.length))
        return b"".join(parts)

    def read_pages(self, virtual: int, out: ByteArray, what: str) -> list[tuple[int, int]]:
        """Fill ``out``, rows of a page each, from a page's address on.

        What is not mapped is zeroed, and returned as (first row, end row).
        """
        missing = []
        for run in self.runs(virtual, len(out) * PAGE_SIZE):
            first = (run.virtual - virtual) // PAGE_SIZE
            rows = slice(first, first + run.length // PAGE_SIZE)
            if run.physical is None:
                out[rows] = 0
                missing.append((rows.start, rows.stop))
            else:
                self._demand(run.virtual, run.physical, run.length, what)
                self.memory.read_frames(run.physical // PAGE_SIZE, out[rows])
        return missing

    def _demand(self, virtual: int, physical: int, length: int, what: str) -> None:
        if not self.memory.holds(physical, length):
            raise WalkError(
                "outside-memory",
                what,
                f"{virtual:#x} is mapped to {physical:#x}, where there is no known memory",
            )

    def words(self, virtual: int, count: int, what: str) -> list[int]:
        """64-bit numbers from a virtual address."""
        content = self.read(virtual, 8 * count, what)
        return _words(content)

    def _step(self, virtual: int) -> _Run:
        """The one mapping that ``virtual`` lies in, from there to its end."""
        if virtual < 0 or virtual >> 64 or not self.canonical(virtual):
            raise WalkError("address", "the guest's kernel", f"{virtual:#x} is no address of its memory")
        table, level, layout = self._root, self.levels, self._layout
        bits = self._topmost
        while True:
            shift = layout.page_shift + layout.index_bits * (level - 1)
            left = (1 << shift) - (virtual & ((1 << shift) - 1))
            entry = self._table(table, bits, virtual)[virtual >> shift & (1 << bits) - 1]
            if not entry & layout.present:
                return _Run(virtual, None, left)
            if layout.maps_memory(entry, level):
                # Bit 12 of a large page's entry is an attribute, not address.
                base = entry & self._address & ~((1 << shift) - 1)
                return _Run(virtual, base | (virtual & ((1 << shift) - 1)), left)
            table, level, bits = entry & self._address, level - 1, layout.index_bits

    def _table(self, physical: int, bits: int, virtual: int) -> list[int]:
        table = self._tables.get(physical)
        if table is None:
            size = 8 << bits
            if not self.memory.holds(physical, size):
                raise WalkError(
                    "page-table",
                    f"the page tables of {virtual:#x}",
                    f"a table is said to be at {physical:#x}, which is no known memory",
                )
            if len(self._tables) >= _REMEMBERED:
                self._tables.clear()
            content = self.memory.read(physical, size)
            table = self._tables[physical] = _words(content)
        return table


def _words(content: bytes) -> list[int]:
    words: list[int] = np.frombuffer(content, dtype="<u8").tolist()
    return words
