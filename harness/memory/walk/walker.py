# SPDX-License-Identifier: GPL-2.0-or-later
"""The walk itself: memmap, lists, proof, result.

    walk = walk_memory(memory)

The memmap is read once, a section at a time, and only what the proof needs of it
is kept: 40 bytes a free block, and what names the frames that are not free.

All of it counts the kernel's own pages.  Only the result is by guest frame: of 4 KiB,
as everywhere else, of which a page may be several.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.memory.image import Flags
from harness.memory.walk.errors import WalkError
from harness.memory.walk.graph import AddressMap, Graph
from harness.memory.walk.kernel import KernelLayout, find_kernel
from harness.memory.walk.lists import Proof, ZoneBits, prove_blocks, prove_counts, prove_links, zones_said
from harness.memory.walk.memmap import find_memmap
from harness.memory.walk.mend import mend
from harness.memory.walk.percpu import locked_zones, read_per_cpu
from harness.memory.walk.physical import GpaRange, GuestMemory, PageReader
from harness.memory.walk.result import FreeWalk, walk_result
from harness.memory.walk.scan import scan
from harness.memory.walk.zones import FreeLists, read_zones


def walk_source(
    image: PageReader, gpa_ranges: Iterable[GpaRange], kernel: KernelLayout | None = None
) -> FreeWalk:
    """Walk a guest whose memory is one image; see :func:`walk_memory`."""
    return walk_memory(GuestMemory.of([(image, gpa_ranges)]), kernel)


def walk_memory(memory: GuestMemory, kernel: KernelLayout | None = None) -> FreeWalk:
    """Find every free page of a guest that stands still.

    ``kernel``: from :func:`find_kernel`, possibly long before; without it, all of
    memory is searched for it.
    """
    known = kernel or find_kernel(memory)
    space = known.space(memory)
    lists = read_zones(space, known)
    present = memory.present(known.frames_per_page)
    memmap = find_memmap(space, known, len(present))
    scanned = scan(space, known, memmap, present)
    places = AddressMap.of(memmap, known.layout, lists.heads, len(present))
    graph = Graph.of(scanned.blocks, lists.heads, places)
    locked = locked_zones(space, known, lists)
    proof = prove(graph, lists, ZoneBits.of(known.layout), present, locked)
    per_cpu = read_per_cpu(space, known, lists, places, scanned.loose)
    found = walk_result(known, lists, scanned.kinds, proof, per_cpu)
    return found.in_frames(known.frames_per_page, memory.frames)


def prove(graph: Graph, lists: FreeLists, bits: ZoneBits, present: Flags, locked: frozenset[int]) -> Proof:
    """All steps of the proof; ``locked`` are the zones that may be in the middle of an operation."""
    transit: tuple[tuple[int, int], ...] = ()
    try:
        number = prove_links(graph)
    except WalkError as error:
        if not locked:
            raise
        mended = mend(graph, lists, locked, zones_said(graph.blocks, lists, bits), error)
        graph, number, transit = mended.graph, mended.lists, mended.in_transit
    prove_blocks(graph, lists, number, bits, present)
    prove_counts(lists, number, locked)
    return Proof(graph.blocks, number, transit)
