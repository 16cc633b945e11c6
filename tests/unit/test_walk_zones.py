# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes and zones: what a walk demands of them before it looks at any list."""

from __future__ import annotations

import numpy as np
import pytest

from harness.memory.walk import WalkError, find_kernel, walk_memory
from harness.memory.walk.zones import read_zones
from harness.units import PAGE_SIZE
from tests.unit.fake_kernel import (
    FIRST_FREE,
    FIRST_HIGH,
    HIGH,
    IMAGE_AT,
    LOW,
    MEMMAP_AT,
    NODES,
    OFFSETS,
    PAGE,
    PGDAT_AT,
    ROOM,
    ZONE_SIZE,
    ZONE_SPANNED,
    FakeKernel,
)

FIELDS = ROOM * ZONE_SIZE + 2 * 16 * (NODES * ROOM + 1)
NODE_DATA = IMAGE_AT + OFFSETS["node_data"]


def broken(fake: FakeKernel) -> WalkError:
    """The error of a walk by somebody who knew the kernel when it was well."""
    with pytest.raises(WalkError) as raised:
        walk_memory(fake.guest(), find_kernel(fake.guest()))
    return raised.value


def test_nodes_and_zones_are_listed_in_order_with_their_spans() -> None:
    fake = FakeKernel(nodes=2)
    kernel = find_kernel(fake.guest())
    lists = read_zones(kernel.space(fake.guest()), kernel)
    assert [(zone.node, zone.index, zone.spanned) for zone in lists.zones] == [
        (0, 0, 0x400),
        (0, 1, 0xC00),
        (2, 1, HIGH // PAGE_SIZE),
    ]
    assert [zone.address - fake.direct for zone in lists.zones] == [
        fake.zone_at(0, 0),
        fake.zone_at(0, 1),
        fake.zone_at(2, 1),
    ]
    # A list's number leads to its zone, order and type, and its head is where it is said to be.
    each = lists.orders * len(lists.types)
    number = 1 * each + 3 * len(lists.types) + 2
    assert lists.name(number) == f"{lists.zones[1]}, order 3, {lists.types[2]}"
    assert int(lists.heads.addresses[number]) == fake.direct + fake.head(0, 1, 3, 2)


def test_a_kernel_without_numa_has_one_node() -> None:
    # There is one list of zones to fall back to instead of two, so what follows lies elsewhere.
    fields = ROOM * ZONE_SIZE + 16 * (ROOM + 1)
    fake = FakeKernel()
    for offset, value in ((0, ROOM), (8, 0), (16, 0x4000), (24, 0)):
        fake.word(PGDAT_AT + fields + offset, value)
    members = {"nr_zones": 0, "node_start_pfn": 8, "node_spanned_pages": 16, "node_id": 24}
    fake.say = {f"OFFSET(pglist_data.{name})": f"{fields + offset}" for name, offset in members.items()}
    fake.say |= {"SYMBOL(node_data)": "", "LENGTH(node_data)": ""}
    fake.say["SYMBOL(contig_page_data)"] = f"{fake.direct + PGDAT_AT:x}"
    fake.note(fake.text())
    fake.free(FIRST_FREE, order=2)
    fake.free(FIRST_HIGH)
    # Nor is there a node in the flags of a page: the zone is in their highest bits.
    pages = (LOW + HIGH) // PAGE_SIZE
    flags = fake.memory[MEMMAP_AT : MEMMAP_AT + pages * PAGE].view("<u8")[:: PAGE // 8]
    flags <<= np.uint64(2)
    walk = walk_memory(fake.guest())
    assert walk.free.nonzero()[0].tolist() == [*range(FIRST_FREE, FIRST_FREE + 4), FIRST_HIGH]
    assert {zone.node for zone in walk.zones} == {0}


def test_a_kernel_with_neither_says_what_is_missing() -> None:
    fake = FakeKernel(say={"SYMBOL(node_data)": ""})
    with pytest.raises(WalkError, match="contig_page_data"):
        walk_memory(fake.guest())


@pytest.mark.parametrize("node", [1, 2, 1 << 31])
def test_a_node_that_calls_itself_another(node: int) -> None:
    fake = FakeKernel()
    fake.word(PGDAT_AT + FIELDS + 24, node, 4)
    error = broken(fake)
    assert (error.rule, error.where) == ("zones", "node 0")
    assert f"calls itself node {node}" in error.problem


def test_two_nodes_that_are_one_structure() -> None:
    fake = FakeKernel()
    fake.word(NODE_DATA + 8, fake.direct + PGDAT_AT)
    error = broken(fake)
    assert (error.rule, error.where) == ("zones", "node 1")
    assert "the same structure as node 0" in error.problem


def test_more_zones_than_there_is_room_for() -> None:
    fake = FakeKernel()
    fake.word(PGDAT_AT + FIELDS, ROOM + 1, 4)
    error = broken(fake)
    assert (error.rule, error.where) == ("zones", "node 0")
    assert f"has {ROOM + 1} zones" in error.problem


def test_as_many_zones_as_there_is_room_for() -> None:
    assert len(walk_memory(FakeKernel().guest()).zones) == ROOM


def test_only_the_zones_that_are_in_use_are_looked_at() -> None:
    """The third zone of node 2 has no page, and lists of zeros."""
    fake = FakeKernel(nodes=2)
    assert len(walk_memory(fake.guest()).zones) == 3
    # A zone behind the last that the node counts may hold anything.
    fake.word(PGDAT_AT + 0x40000 + FIELDS, 2, 4)
    fake.word(fake.zone_at(2, 2) + ZONE_SPANNED, 0x100)
    assert len(walk_memory(fake.guest()).zones) == 3


def test_a_guest_without_any_zone() -> None:
    fake = FakeKernel()
    for index in range(ROOM):
        fake.word(fake.zone_at(0, index) + ZONE_SPANNED, 0)
    assert broken(fake).rule == "zones"


def test_a_guest_without_any_node() -> None:
    fake = FakeKernel()
    fake.word(NODE_DATA, 0)
    assert "no zone with pages" in broken(fake).problem


@pytest.mark.parametrize("bit", [52, 63])
def test_a_count_that_no_memory_can_have(bit: int) -> None:
    fake = FakeKernel()
    fake.word(fake.area(0, 1, 4) + 16 * fake.types, 1 << bit)
    error = broken(fake)
    assert error.rule == "count"
    assert error.where.endswith("order 4")
    assert error.problem == f"is said to have {1 << bit} free blocks"


def test_the_largest_count_that_is_believed_is_held_against_the_list() -> None:
    fake = FakeKernel()
    fake.word(fake.area(0, 1, 4) + 16 * fake.types, (1 << 52) - 1)
    error = broken(fake)
    assert error.rule == "count"
    assert "is said to have" not in error.problem


def test_a_node_whose_structure_is_not_mapped() -> None:
    fake = FakeKernel()
    fake.word(NODE_DATA + 8, 0xFFFF_8000_0000_0000)
    assert broken(fake).rule == "unmapped"
