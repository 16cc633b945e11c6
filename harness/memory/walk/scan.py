# SPDX-License-Identifier: GPL-2.0-or-later
"""The memmap read once: every block that says it is free, and what everything else is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.walk.graph import Frames, FreeBlocks
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.kinds import Kind, Kinds, buddies, classify
from harness.memory.walk.layout import PageLayout
from harness.memory.walk.memmap import MemMap, read_section, section_buffer
from harness.memory.walk.pages import PageViews, Words
from harness.memory.walk.pagetables import AddressSpace

#: A mask, where a tail's word could be an address: those of the memmap are never that high.
_MASKS = 0xFFFF_FFFF


@dataclass(frozen=True, eq=False)
class Scan:
    """What the memmap says, before any list was looked at."""

    kinds: Kinds
    """By frame; inside blocks that say they are free it means nothing yet."""
    blocks: FreeBlocks
    loose: FreeBlocks
    """Pages that nobody holds, with their links: those on per-cpu lists are among them."""


def scan(space: AddressSpace, kernel: KernelLayout, memmap: MemMap, present: Flags) -> Scan:
    """Read every section that is online.  ``present``: by page of the kernel's, whether it has memory."""
    kinds = np.full(len(present), Kind.UNKNOWN, dtype=np.uint8)
    marks, layout = kernel.marks, kernel.layout.page
    buffer = section_buffer(kernel)
    blocks, loose, tails = _Collector(layout), _Collector(layout), _Tails()
    for section in memmap.sections:
        here = slice(section.first, section.first + section.frames)
        if not section.online:
            kinds[here] = Kind.OFFLINE
            continue
        if not present[here].any():
            continue
        pages = read_section(space, kernel, memmap, section, buffer)
        rows = buddies(pages, marks, layout)
        blocks.add(pages, rows)
        # Free memory is most of it: what lies inside a block needs no name.
        rest = np.flatnonzero(~_covered(pages, rows, layout, kernel.layout.zone.orders) & present[here])
        found, are_tails = classify(pages, rest, marks, layout)
        kinds[here][rest] = found
        loose.add(pages, rest[(found == np.uint8(Kind.LOOSE)) & ~are_tails])
        if layout.compound is not None and are_tails.any():
            tails.add(section.first + rest[are_tails], pages.u64(layout.compound)[rest[are_tails]])
    tails.name(kinds, memmap)
    kinds[~present] = Kind.ABSENT
    return Scan(kinds, blocks.blocks(), loose.blocks())


def _covered(pages: PageViews, rows: npt.NDArray[np.int64], layout: PageLayout, orders: int) -> Flags:
    """Which pages lie in a block, as far as the blocks' own orders say."""
    edges = np.zeros(len(pages) + 1, dtype=np.int32)
    order = pages.u64(layout.private)[rows]
    sane = order < np.uint64(orders)
    first = rows[sane]
    end = np.minimum(first + (np.int64(1) << order[sane].astype(np.int64)), len(pages))
    np.add.at(edges, first, 1)
    np.subtract.at(edges, end, 1)
    covered: Flags = np.cumsum(edges[:-1]) > 0
    covered[rows] = True
    return covered


class _Collector:
    """Links, orders and flags of some pages of each section."""

    def __init__(self, layout: PageLayout) -> None:
        self._offsets = (layout.lru, layout.lru + 8, layout.private, layout.flags)
        self._frames: list[Frames] = []
        self._words: list[list[Words]] = [[] for _ in self._offsets]

    def add(self, pages: PageViews, rows: npt.NDArray[np.int64]) -> None:
        if rows.size:
            self._frames.append(rows + pages.first)
            for words, offset in zip(self._words, self._offsets, strict=True):
                words.append(pages.u64(offset)[rows])

    def blocks(self) -> FreeBlocks:
        if not self._frames:
            none = np.empty(0, dtype=np.uint64)
            return FreeBlocks(none.astype(np.int64), none, none, none, none)
        return FreeBlocks(np.concatenate(self._frames), *(np.concatenate(words) for words in self._words))


class _Tails:
    """Pages that are what their head is, which may be in another section."""

    def __init__(self) -> None:
        self._frames: list[Frames] = []
        self._words: list[Words] = []

    def add(self, frames: Frames, words: Words) -> None:
        self._frames.append(frames)
        self._words.append(words)

    def name(self, kinds: Kinds, memmap: MemMap) -> None:
        if not self._frames:
            return
        frames, words = np.concatenate(self._frames), np.concatenate(self._words)
        own = np.uint64(memmap.base) + frames.astype(np.uint64) * np.uint64(memmap.size)
        # A pointer to the head with bit 0 set; or a mask that, applied to the tail's own address, gives
        # the head's (newer kernels, where a struct page's size is a power of two).
        masks = words >> np.uint64(32) == np.uint64(_MASKS)
        address = np.where(masks, own & words, words - np.uint64(1))
        head, rest = np.divmod(address - np.uint64(memmap.base), np.uint64(memmap.size))
        good = (rest == 0) & (head < frames.astype(np.uint64))
        kinds[frames[good]] = kinds[head[good].astype(np.int64)]
