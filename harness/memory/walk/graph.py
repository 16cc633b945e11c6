# SPDX-License-Identifier: GPL-2.0-or-later
"""Free blocks and list heads as one graph of numbers: who points to whom.

Node numbers are those of the blocks, in order of their frames, then those of the
list heads.  An address that is no node's becomes -1, and is kept for the error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.memory.walk.layout import Layout
from harness.memory.walk.memmap import MemMap
from harness.memory.walk.pages import Words

Frames = npt.NDArray[np.int64]
Nodes = npt.NDArray[np.int32]

NOBODY = -1


@dataclass(frozen=True, eq=False)
class FreeBlocks:
    """Every page that says it begins a free block, in order of frames."""

    frames: Frames
    next: Words
    prev: Words
    orders: Words
    flags: Words

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, eq=False)
class Heads:
    """List heads by number."""

    addresses: Words
    next: Words
    prev: Words
    name: Callable[[int], str]
    """A list in words."""


@dataclass(frozen=True, eq=False)
class AddressMap:
    """Which frame, or which list head, is at an address."""

    base: int
    """Where the list links of frame 0 would be."""
    size: int
    frames: int
    heads: Words

    @classmethod
    def of(cls, memmap: MemMap, layout: Layout, heads: Heads, frames: int) -> AddressMap:
        """The places of a kernel's memmap and of these list heads."""
        return cls(memmap.base + layout.page.lru, memmap.size, frames, heads.addresses)

    def with_heads(self, heads: Heads) -> AddressMap:
        """The places of this memmap with other list heads."""
        return replace(self, heads=heads.addresses)

    def frame(self, addresses: Words) -> Frames:
        """The frame whose page's links are at each address, or NOBODY."""
        # Below the memmap the difference wraps, and is far too large.
        distance = addresses - np.uint64(self.base)
        frame, rest = np.divmod(distance, np.uint64(self.size))
        inside = (rest == 0) & (frame < np.uint64(self.frames))
        return np.where(inside, frame, np.uint64(0)).astype(np.int64) - np.where(inside, 0, 1)

    def head(self, addresses: Words) -> Nodes:
        """The number of the list whose head is at each address, or NOBODY."""
        order = np.argsort(self.heads)
        place = np.searchsorted(self.heads, addresses, sorter=order)
        number = order[np.minimum(place, len(order) - 1)]
        return np.where(self.heads[number] == addresses, number, NOBODY).astype(np.int32)


@dataclass(eq=False)
class Graph:
    """The links of all nodes, by number."""

    blocks: FreeBlocks
    heads: Heads
    places: AddressMap
    next: Nodes
    prev: Nodes

    @classmethod
    def of(cls, blocks: FreeBlocks, heads: Heads, places: AddressMap) -> Graph:
        """Turn every address into a number."""
        number = np.full(places.frames, NOBODY, dtype=np.int32)
        number[blocks.frames] = np.arange(len(blocks), dtype=np.int32)

        def nodes(mine: Words, of_heads: Words) -> Nodes:
            addresses = np.concatenate((mine, of_heads))
            frame = places.frame(addresses)
            found = number[frame]  # NOBODY takes the last frame's, and is overwritten
            others = np.flatnonzero(frame == NOBODY)
            head = places.head(addresses[others])
            found[others] = np.where(head == NOBODY, NOBODY, head + len(blocks))
            return found

        return cls(blocks, heads, places, nodes(blocks.next, heads.next), nodes(blocks.prev, heads.prev))

    def __len__(self) -> int:
        return len(self.next)

    def is_head(self, node: int) -> bool:
        """Whether this node is a list's head, not a block."""
        return node >= len(self.blocks)

    def address(self, node: int, *, backward: bool = False) -> int:
        """Where a node's link leads, as it is in memory."""
        blocks = len(self.blocks)
        if node < blocks:
            return int((self.blocks.prev if backward else self.blocks.next)[node])
        return int((self.heads.prev if backward else self.heads.next)[node - blocks])

    def name(self, node: int) -> str:
        """A node in words."""
        if self.is_head(node):
            return f"the list of {self.heads.name(node - len(self.blocks))}"
        return f"frame {int(self.blocks.frames[node]):#x} (order {int(self.blocks.orders[node])})"

    def name_address(self, address: int) -> str:
        """What is at an address that is no node's, in words."""
        frame = int(self.places.frame(np.array([address], dtype=np.uint64))[0])
        if frame == NOBODY:
            return f"{address:#x}, which is neither a page's links nor a list's head"
        return f"frame {frame:#x}, which is no free block"
