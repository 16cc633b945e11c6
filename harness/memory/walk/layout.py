# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the allocator's structures keep what a walk reads.

Everything is from VMCOREINFO, and so from the kernel that runs; never from a
version number.  Two things it leaves out follow from what it gives:

- ``free_area.nr_free`` comes after the lists: what ``SIZE(free_area)`` leaves;
- how many zones a node has room for: the zones, the zonelists and ``nr_zones``
  follow each other in ``struct pglist_data``, and only one number fits; where several do, the kernel's
  types tell which.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.walk.errors import WalkError
from harness.memory.walk.vmcoreinfo import VmcoreInfo

_POINTER = 8
_LIST_HEAD = 2 * _POINTER
#: The enum's order has not changed since it is one; which of the last two exist depends on the
#: configuration, and CMA needs isolation.
_ALWAYS = ("Unmovable", "Movable", "Reclaimable", "HighAtomic")
#: CONFIG_NODES_SHIFT is 4 or more by default wherever there is NUMA (arch/*/Kconfig).
_FEWEST_NODES = 16
_OPTIONAL = {4: (), 5: ("Isolate",), 6: ("CMA", "Isolate")}


@dataclass(frozen=True, slots=True)
class PageLayout:
    """``struct page``."""

    size: int
    flags: int
    refcount: int
    type: int
    """``_mapcount``, which is a type where the page is not mapped."""
    lru: int
    mapping: int
    private: int
    compound: int | None
    """Where a tail page says which head it belongs to."""


@dataclass(frozen=True, slots=True)
class ZoneLayout:
    """``struct zone`` and its lists."""

    size: int
    spanned: int
    free_area: int
    area_size: int
    free_list: int
    nr_free: int
    orders: int
    types: tuple[str, ...]
    """Names of the migrate types, in the order of their lists."""


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """``struct pglist_data``."""

    size: int
    zones: int
    nr_zones: int
    node_id: int
    start: int
    spanned: int
    room: int
    """How many zones there is room for."""
    most: int
    """How many nodes the kernel can have."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All of it."""

    page: PageLayout
    zone: ZoneLayout
    node: NodeLayout
    section_bits: int
    section_size: int
    section_map: int

    @classmethod
    def of(cls, info: VmcoreInfo, zones: int | None = None) -> Layout:
        """Read the layout from VMCOREINFO; a layout that cannot be is an error.

        ``zones``: how many a node has room for, if something else tells.
        """
        zone = _zone(info)
        section_size = _bounded(info, "SIZE(mem_section)", info.size("mem_section"), _POINTER, 256)
        section_map = _member(info, "mem_section.section_mem_map", section_size, _POINTER)
        bits = _bounded(info, "SECTION_SIZE_BITS", info.number("SECTION_SIZE_BITS"), 21, 40)
        if info.get("SYMBOL", "mem_section") is None:
            raise WalkError("vmcoreinfo-lacks", _where(info), "the kernel's memory is not sparse")
        return cls(_page(info), zone, _node(info, zone, zones), bits, section_size, section_map)


def _where(info: VmcoreInfo) -> str:
    return f"VMCOREINFO of {info.release}"


def _bounded(info: VmcoreInfo, name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise WalkError("vmcoreinfo", _where(info), f"{name} is {value}, expected {least} to {most}")
    return value


def _member(info: VmcoreInfo, name: str, size: int, length: int, *, kind: str = "OFFSET") -> int:
    offset = info.offset(name) if kind == "OFFSET" else info.size(name)
    if offset % min(length, _POINTER) or not 0 <= offset <= size - length:
        raise WalkError("vmcoreinfo", _where(info), f"{name} at {offset} does not fit into {size} bytes")
    return offset


def _page(info: VmcoreInfo) -> PageLayout:
    size = _bounded(info, "SIZE(page)", info.size("page"), 32, 512)
    if size % _POINTER:
        raise WalkError("vmcoreinfo", _where(info), f"SIZE(page) is {size}, no multiple of {_POINTER}")
    # The word's name says how the head is encoded, which the reader of the word tells by its value.
    names = ("page.compound_info", "page.compound_head")
    compound = next((name for name in names if info.get("OFFSET", name) is not None), None)
    return PageLayout(
        size,
        _member(info, "page.flags", size, 8),
        _member(info, "page._refcount", size, 4),
        _member(info, "page._mapcount", size, 4),
        _member(info, "page.lru", size, _LIST_HEAD),
        _member(info, "page.mapping", size, 8),
        _member(info, "page.private", size, 8),
        None if compound is None else _member(info, compound, size, 8),
    )


def _zone(info: VmcoreInfo) -> ZoneLayout:
    size = _bounded(info, "SIZE(zone)", info.size("zone"), 64, 1 << 16)
    area = _bounded(info, "SIZE(free_area)", info.size("free_area"), _LIST_HEAD + 8, 4096)
    orders = _bounded(info, "LENGTH(zone.free_area)", info.length("zone.free_area"), 1, 32)
    count = info.length("free_area.free_list")
    if count not in _OPTIONAL:
        raise WalkError("vmcoreinfo", _where(info), f"there are {count} migrate types, known are 4 to 6")
    links = (info.offset("list_head.next"), info.offset("list_head.prev"), info.size("list_head"))
    if links != (0, _POINTER, _LIST_HEAD):
        raise WalkError("vmcoreinfo", _where(info), f"a list_head is not two pointers: {links}")
    free_list = _member(info, "free_area.free_list", area, count * _LIST_HEAD)
    nr_free = free_list + count * _LIST_HEAD
    if nr_free + 8 != area:
        raise WalkError(
            "vmcoreinfo",
            _where(info),
            f"{count} lists and a count make {nr_free + 8} bytes, SIZE(free_area) is {area}",
        )
    free_area = _member(info, "zone.free_area", size, orders * area)
    spanned = _member(info, "zone.spanned_pages", size, 8)
    types = _ALWAYS + _OPTIONAL[count]
    return ZoneLayout(size, spanned, free_area, area, free_list, nr_free, orders, types)


def _node(info: VmcoreInfo, zone: ZoneLayout, told: int | None) -> NodeLayout:
    size = _bounded(info, "SIZE(pglist_data)", info.size("pglist_data"), zone.size, 1 << 24)
    zones = _member(info, "pglist_data.node_zones", size, zone.size)
    nr_zones = _member(info, "pglist_data.nr_zones", size, 4)
    room, most = _room(info, nr_zones - zones, zone.size, _nodes(info), told)
    return NodeLayout(
        size,
        zones,
        nr_zones,
        _member(info, "pglist_data.node_id", size, 4),
        _member(info, "pglist_data.node_start_pfn", size, 8),
        _member(info, "pglist_data.node_spanned_pages", size, 8),
        room,
        most,
    )


def _nodes(info: VmcoreInfo) -> tuple[int, ...]:
    """How many nodes the kernel can have.  Only x86 says so; else, with NUMA, it is a power of two."""
    said = info.get("LENGTH", "node_data")
    if said is not None:
        return (_bounded(info, "LENGTH(node_data)", said, 1, 1 << 12),)
    return (1,) if info.get("SYMBOL", "node_data") is None else tuple(1 << shift for shift in range(1, 11))


def _room(
    info: VmcoreInfo, between: int, zone_size: int, nodes: tuple[int, ...], told: int | None = None
) -> tuple[int, int]:
    """How many zones fit before the zonelists, of how many nodes: both follow from the bytes in between.

    A zonelist has one pointer and index for each zone of each node, and an end.  With NUMA there are two
    zonelists, the second for allocations that must not leave the node.
    """
    counts = (told,) if told else range(2, 9)
    found: list[tuple[int, int]] = []
    for lists in (2, 1):
        found = [
            (count, most)
            for most in nodes
            for count in counts
            if count * zone_size + lists * 16 * (most * count + 1) == between
        ]
        # Fewer nodes than a kernel with NUMA is built for would be a fit by accident.
        found = [(count, most) for count, most in found if most == 1 or most >= _FEWEST_NODES] or found
        if found:
            break
    if len(found) == 1:
        return found[0]
    raise WalkError(
        "vmcoreinfo",
        _where(info),
        f"{'more than one' if found else 'no'} number of zones of {zone_size} bytes fits into the {between} "
        f"bytes before their count, with room for {' or '.join(map(str, nodes))} nodes",
    )
