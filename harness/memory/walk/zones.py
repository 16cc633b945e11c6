# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones, and the heads of their free lists.

    areas = read_zones(space, kernel)
    areas.zones                # in order of node and zone
    areas.next, areas.counts   # of every list, of every order

A list's number is ``((zone * orders) + order) * types + type``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.memory.walk.errors import WalkError
from harness.memory.walk.graph import Heads
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.layout import Layout
from harness.memory.walk.pagetables import AddressSpace


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone of one node."""

    node: int
    index: int
    name: str
    address: int
    spanned: int
    """Pages from its first to its last, holes included."""

    def __str__(self) -> str:
        return f"node {self.node}, zone {self.name}"


@dataclass(frozen=True, eq=False)
class FreeLists:
    """The heads of all lists, by number."""

    zones: tuple[Zone, ...]
    orders: int
    types: tuple[str, ...]
    heads: Heads
    counts: npt.NDArray[np.int64]
    """``nr_free``, by zone and order."""

    def name(self, number: int) -> str:
        """A list in words."""
        return self.heads.name(number)


def read_zones(space: AddressSpace, kernel: KernelLayout) -> FreeLists:
    """Every zone that has pages, of every node."""
    layout = kernel.layout
    zones: list[Zone] = []
    content: list[bytes] = []
    for node, address in _nodes(space, kernel):
        for zone, data in _zones_of(space, kernel, node, address):
            zones.append(zone)
            content.append(data)
    if not zones:
        raise WalkError("zones", f"the kernel {kernel.info.release}", "has no zone with pages")
    return _lists(layout, tuple(zones), np.frombuffer(b"".join(content), dtype=np.uint8))


def _nodes(space: AddressSpace, kernel: KernelLayout) -> Iterator[tuple[int, int]]:
    """(number, address of its pglist_data) of each node."""
    info = kernel.info
    if info.get("SYMBOL", "node_data") is None:
        yield 0, info.symbol("contig_page_data")  # built without NUMA
        return
    pointers = space.words(info.symbol("node_data"), kernel.layout.node.most, "node_data")
    seen: dict[int, int] = {}
    for node, pointer in enumerate(pointers):
        if not pointer:
            continue
        if pointer in seen:
            raise WalkError("zones", f"node {node}", f"is the same structure as node {seen[pointer]}")
        seen[pointer] = node
        yield node, pointer


def _zones_of(
    space: AddressSpace, kernel: KernelLayout, node: int, address: int
) -> Iterator[tuple[Zone, bytes]]:
    where, layout, parts = f"node {node}", kernel.layout, kernel.layout.node
    said = int.from_bytes(space.read(address + parts.node_id, 4, where), "little")
    if said != node:
        raise WalkError("zones", where, f"calls itself node {said}")
    used = int.from_bytes(space.read(address + parts.nr_zones, 4, where), "little")
    if used > parts.room:
        raise WalkError("zones", where, f"has {used} zones, there is room for {parts.room}")
    for index in range(used):
        start = address + parts.zones + index * layout.zone.size
        name = kernel.zone_name(index)
        data = space.read(start, layout.zone.size, f"{where}, zone {name}")
        spanned = int.from_bytes(data[layout.zone.spanned : layout.zone.spanned + 8], "little")
        # A zone that has no page yet may not even have its lists set up.
        if spanned:
            yield Zone(node, index, name, start, spanned), data


def _lists(layout: Layout, zones: tuple[Zone, ...], content: npt.NDArray[np.uint8]) -> FreeLists:
    zone, types = layout.zone, len(layout.zone.types)
    areas = content.reshape(len(zones), zone.size)[
        :, zone.free_area : zone.free_area + zone.orders * zone.area_size
    ].reshape(len(zones), zone.orders, zone.area_size)
    lists = areas[:, :, zone.free_list : zone.free_list + 16 * types]
    links = np.ascontiguousarray(lists).view("<u8").reshape(-1, 2)
    counts = (
        np.ascontiguousarray(areas[:, :, zone.nr_free : zone.nr_free + 8]).view("<u8").reshape(len(zones), -1)
    )
    if (counts >> np.uint64(52)).any():
        bad = np.argwhere(counts >> np.uint64(52))[0]
        raise WalkError(
            "count",
            f"{zones[bad[0]]}, order {bad[1]}",
            f"is said to have {int(counts[bad[0], bad[1]])} free blocks",
        )
    starts = np.array([one.address for one in zones], dtype=np.uint64)[:, None, None]
    order = np.arange(zone.orders, dtype=np.uint64)[None, :, None] * np.uint64(zone.area_size)
    kind = np.arange(types, dtype=np.uint64)[None, None, :] * np.uint64(16)
    heads = starts + np.uint64(zone.free_area + zone.free_list) + order + kind
    return FreeLists(
        zones,
        zone.orders,
        zone.types,
        Heads(heads.reshape(-1), links[:, 0].copy(), links[:, 1].copy(), partial(_list_name, zones, layout)),
        counts.astype(np.int64),
    )


def _list_name(zones: tuple[Zone, ...], layout: Layout, number: int) -> str:
    area, kind = divmod(number, len(layout.zone.types))
    zone, order = divmod(area, layout.zone.orders)
    return f"{zones[zone]}, order {order}, {layout.zone.types[kind]}"
