# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof that what says it is free is on a free list, and on exactly one.

A page may *say* that it begins a free block.  It does if the lists say so too:

1. every link of every block and every head leads to a block or a head;
2. ``prev`` of the next node leads back: so "next" is a permutation, and all
   nodes fall into rings;
3. every ring has exactly one head in it: so every block is on one list, and no
   list runs into another;
4. blocks are of their list's order, zone and node, aligned, inside memory, and
   do not overlap;
5. each zone and order has as many blocks as it counts.

The third is decided by pointer doubling (each step jumps twice as far as the one
before), so a list of a million blocks takes twenty steps over whole arrays, and
a ring without a head ends the walk after as many, instead of going round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.walk.errors import WalkError
from harness.memory.walk.graph import NOBODY, FreeBlocks, Graph, Nodes
from harness.memory.walk.layout import Layout
from harness.memory.walk.zones import FreeLists


@dataclass(frozen=True, slots=True)
class ZoneBits:
    """Where ``page.flags`` says which zone a page is in: node, then zone, at the top of the word."""

    node_shift: int
    zone_shift: int

    @classmethod
    def of(cls, layout: Layout) -> ZoneBits:
        """As wide as the kernel's numbers of nodes and zones need."""
        node_width = (layout.node.most - 1).bit_length()
        zone_width = (layout.node.room - 1).bit_length()
        return cls(64 - node_width, 64 - node_width - zone_width)


@dataclass(frozen=True, eq=False)
class Proof:
    """The free blocks, each on one list."""

    blocks: FreeBlocks
    lists: Nodes
    """The number of each one's list."""
    in_transit: tuple[tuple[int, int], ...] = ()
    """(frame, order) of blocks that were half on a list; order 0 where it is not known."""


def zones_said(blocks: FreeBlocks, lists: FreeLists, bits: ZoneBits) -> Nodes:
    """The zone that each block says it is in, by its number here, or NOBODY."""
    numbers = np.full(1 << (64 - bits.zone_shift), NOBODY, dtype=np.int32)
    for number, zone in enumerate(lists.zones):
        numbers[zone.node << (bits.node_shift - bits.zone_shift) | zone.index] = number
    return numbers[(blocks.flags >> np.uint64(bits.zone_shift)).astype(np.int64)]


def prove_links(graph: Graph) -> Nodes:
    """Steps 1 to 3.  The list that each block is on."""
    check_neighbours(graph)
    blocks = len(graph.blocks)
    ends = _ends(graph)
    _check_heads(graph, ends)
    return ends[:blocks] - np.int32(blocks)


def check_neighbours(graph: Graph) -> None:
    """Steps 1 and 2."""
    for backward, links in ((False, graph.next), (True, graph.prev)):
        lost = np.flatnonzero(links == NOBODY)
        if lost.size:
            node = int(lost[0])
            target = graph.name_address(graph.address(node, backward=backward))
            link = "prev" if backward else "next"
            raise WalkError("dangling", graph.name(node), f"{link} leads to {target}{_more(lost)}")
    numbers = np.arange(len(graph), dtype=np.int32)
    broken = np.flatnonzero(graph.prev[graph.next] != numbers)
    if broken.size:
        node = int(broken[0])
        after = int(graph.next[node])
        raise WalkError(
            "link",
            graph.name(node),
            f"is followed by {graph.name(after)}, which says that it comes after "
            f"{graph.name(int(graph.prev[after]))}{_more(broken)}",
        )


def _more(found: npt.NDArray[np.signedinteger]) -> str:
    return f" (and {found.size - 1} more such)" if found.size > 1 else ""


def _ends(graph: Graph) -> Nodes:
    """The head that each node's list ends in."""
    blocks = len(graph.blocks)
    reach = graph.next.copy()
    reach[blocks:] = np.arange(blocks, len(graph), dtype=np.int32)
    for _ in range(blocks.bit_length() + 1):
        if not (reach[:blocks] < blocks).any():
            return reach
        reach = reach[reach]
    ring = np.flatnonzero(reach[:blocks] < blocks)
    if ring.size:
        raise WalkError(
            "ring",
            graph.name(int(ring[0])),
            f"is in a ring of {_ring_length(graph, int(ring[0]))} blocks that no list's head is in",
        )
    return reach


def _ring_length(graph: Graph, start: int) -> int:
    """Only for the error; bounded by the number of nodes, as "next" is a permutation by now."""
    length, node = 1, int(graph.next[start])
    while node != start and length < 1000:
        length, node = length + 1, int(graph.next[node])
    return length


def _check_heads(graph: Graph, ends: Nodes) -> None:
    """Whoever starts at a head must end there; if not, two lists have been joined."""
    blocks = len(graph.blocks)
    heads = np.arange(blocks, len(graph), dtype=np.int32)
    crossed = np.flatnonzero(ends[graph.next[blocks:]] != heads)
    if crossed.size:
        head = blocks + int(crossed[0])
        other = int(ends[graph.next[head]])
        raise WalkError("crossed", graph.name(head), f"runs into {graph.name(other)}")


def prove_blocks(graph: Graph, lists: FreeLists, number: Nodes, bits: ZoneBits, present: Flags) -> None:
    """Step 4, given the list of each block."""
    blocks = graph.blocks
    area = number // len(lists.types)
    zone, order = np.divmod(area, lists.orders)
    wrong = np.flatnonzero(blocks.orders != order.astype(np.uint64))
    if wrong.size:
        first = int(wrong[0])
        raise WalkError(
            "order", graph.name(first), f"is on the list of {lists.name(int(number[first]))}{_more(wrong)}"
        )
    _check_zone(graph, lists, number, zone, bits)
    _check_extent(graph, present)


def _check_zone(graph: Graph, lists: FreeLists, number: Nodes, zone: Nodes, bits: ZoneBits) -> None:
    said = zones_said(graph.blocks, lists, bits)
    wrong = np.flatnonzero(said != zone)
    if wrong.size:
        first = int(wrong[0])
        where = "no zone" if said[first] == NOBODY else str(lists.zones[int(said[first])])
        raise WalkError(
            "zone",
            graph.name(first),
            f"says that it is in {where}, and is on the list of {lists.name(int(number[first]))}"
            + _more(wrong),
        )


def _check_extent(graph: Graph, present: Flags) -> None:
    blocks = graph.blocks
    first, size = blocks.frames, np.int64(1) << blocks.orders.astype(np.int64)
    unaligned = np.flatnonzero(first & (size - 1))
    if unaligned.size:
        raise WalkError(
            "alignment", graph.name(int(unaligned[0])), f"is not aligned to its size{_more(unaligned)}"
        )
    before = np.zeros(len(present) + 1, dtype=np.int64)
    np.cumsum(present, out=before[1:])
    end = np.minimum(first + size, len(present))
    outside = np.flatnonzero(before[end] - before[first] != size)
    if outside.size:
        raise WalkError(
            "outside-memory",
            graph.name(int(outside[0])),
            f"is free, but not all of it is memory{_more(outside)}",
            hint="a guest with memory in no file of its own cannot be walked",
        )
    overlap = np.flatnonzero(first[:-1] + size[:-1] > first[1:])
    if overlap.size:
        one = int(overlap[0])
        raise WalkError("overlap", graph.name(one), f"overlaps {graph.name(one + 1)}{_more(overlap)}")


def prove_counts(lists: FreeLists, number: Nodes, unsettled: frozenset[int] = frozenset()) -> None:
    """Step 5.  In an unsettled zone one count may be off by one: the list comes first, then the count."""
    areas = len(lists.zones) * lists.orders
    found = np.bincount(number // len(lists.types), minlength=areas).reshape(lists.counts.shape)
    difference = np.abs(found - lists.counts)
    for zone in unsettled:
        if difference[zone].sum() == 1:
            difference[zone] = 0
    wrong = np.argwhere(difference)
    if len(wrong):
        zone, order = (int(number) for number in wrong[0])
        raise WalkError(
            "count",
            f"{lists.zones[zone]}, order {order}",
            f"{int(found[zone, order])} blocks are on its lists, it counts {int(lists.counts[zone, order])}"
            + _more(wrong[:, 0]),
        )
