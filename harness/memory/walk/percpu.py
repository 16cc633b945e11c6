# SPDX-License-Identifier: GPL-2.0-or-later
"""Free pages that a processor keeps for itself, and locks that were held.

A page on a per-cpu list is free in every sense but one: the buddy allocator does
not have it, so neither a walk in the guest nor this one may call it free.  It is
named because it is the commonest answer to "why was this page not reported".

Nothing depends on it, so what is odd here (a processor may have been stopped in
the middle of an operation) is noted, and its pages stay loose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.memory.walk.errors import WalkError
from harness.memory.walk.extras import PerCpuLayout
from harness.memory.walk.graph import NOBODY, AddressMap, Frames, FreeBlocks, Graph, Heads, Nodes
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.zones import FreeLists

#: Lists 0 to 11: orders 0 to 3, three migrate types each. The others hold huge pages.
_TYPES = 3
_LOW_ORDERS = 4
_64_BITS = (1 << 64) - 1
_MOST_ZONES_AND_CPUS = 1 << 16


@dataclass(frozen=True, eq=False)
class PerCpu:
    """The blocks on per-cpu lists, and what could not be told."""

    frames: Frames
    orders: Frames
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Set:
    """One processor's pages of one zone."""

    name: str
    address: int
    count: int


def locked_zones(space: AddressSpace, kernel: KernelLayout, lists: FreeLists) -> frozenset[int]:
    """Zones whose lock is held: there, a list may be in the middle of an operation."""
    lock = kernel.extras.zone_lock
    if lock is None or not 0 <= lock <= kernel.layout.zone.size - 4:
        return frozenset()
    return frozenset(
        number
        for number, zone in enumerate(lists.zones)
        if any(space.read(zone.address + lock, 4, f"the lock of {zone}"))
    )


def read_per_cpu(
    space: AddressSpace, kernel: KernelLayout, lists: FreeLists, places: AddressMap, loose: FreeBlocks
) -> PerCpu:
    """Find the pages on per-cpu lists among those that nobody holds."""
    none = np.empty(0, dtype=np.int64)
    layout = kernel.extras.per_cpu
    if layout is None:
        return PerCpu(none, none)
    try:
        sets = list(_sets(space, layout, lists))
        # As large as what one entry above the lowest level maps.
        huge = kernel.tables.index_bits
        return _members(space, layout, sets, places, loose, huge) if sets else PerCpu(none, none)
    except WalkError as error:
        return PerCpu(none, none, (f"per-cpu lists could not be read: {error}",))


def _sets(space: AddressSpace, layout: PerCpuLayout, lists: FreeLists) -> Iterator[_Set]:
    mask = np.frombuffer(space.read(layout.possible, layout.cpus // 8, "__cpu_possible_mask"), dtype=np.uint8)
    cpus = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
    offsets = space.words(layout.offsets, cpus[-1] + 1 if cpus else 0, "__per_cpu_offset")
    if len(lists.zones) * len(cpus) > _MOST_ZONES_AND_CPUS:
        raise WalkError("percpu", "the per-cpu lists", f"{len(lists.zones)} zones, {len(cpus)} processors")
    seen: set[int] = set()
    for zone in lists.zones:
        (pageset,) = space.words(zone.address + layout.pageset, 1, str(zone))
        for cpu in cpus:
            address = (pageset + offsets[cpu]) & _64_BITS
            if address in seen:
                continue  # a zone without memory of its own shares the one of boot
            seen.add(address)
            name = f"{zone}, cpu {cpu}"
            count = int.from_bytes(space.read(address + layout.count, 4, name), "little", signed=True)
            yield _Set(name, address, count)


def _members(
    space: AddressSpace,
    layout: PerCpuLayout,
    sets: list[_Set],
    places: AddressMap,
    loose: FreeBlocks,
    huge: int,
) -> PerCpu:
    starts = np.array([one.address + layout.lists for one in sets], dtype=np.uint64)
    each = np.arange(layout.how_many, dtype=np.uint64) * np.uint64(16)
    links = np.array([space.words(start, 2 * layout.how_many, "per-cpu lists") for start in starts.tolist()])
    pairs = links.astype(np.uint64).reshape(-1, 2)
    heads = Heads((starts[:, None] + each).reshape(-1), pairs[:, 0].copy(), pairs[:, 1].copy(), str)
    graph = Graph.of(loose, heads, places.with_heads(heads))
    owner = _owners(graph)
    orders = np.minimum(np.arange(layout.how_many) // _TYPES, _LOW_ORDERS)
    orders[orders == _LOW_ORDERS] = huge
    on_list = np.flatnonzero(owner != NOBODY)
    which, order = owner[on_list] // layout.how_many, orders[owner[on_list] % layout.how_many]
    pages = np.bincount(which, weights=np.int64(1) << order, minlength=len(sets)).astype(np.int64)
    notes = tuple(
        f"{one.name}: {int(found)} pages are on its lists, it counts {one.count}"
        for one, found in zip(sets, pages, strict=True)
        if found != one.count
    )
    return PerCpu(loose.frames[on_list], order.astype(np.int64), notes)


def _owners(graph: Graph) -> Nodes:
    """The list that each page is on, or NOBODY.  Pages that are on none have links of any kind."""
    blocks = len(graph.blocks)
    numbers = np.arange(len(graph), dtype=np.int32)
    # Only links that are returned count. Then every chain is one, and ends.
    good = (graph.next != NOBODY) & (graph.prev[graph.next] == numbers)
    reach = np.where(good, graph.next, numbers).astype(np.int32)
    reach[blocks:] = numbers[blocks:]
    for _ in range(blocks.bit_length() + 1):
        reach = reach[reach]
    ends = reach[:blocks]
    return np.where(ends >= blocks, ends - blocks, NOBODY).astype(np.int32)
