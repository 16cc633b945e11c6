# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists that are wrong, in each way there is: every one ends in an error that names it, none in a loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.memory.walk import FreeWalk, WalkError, find_kernel, walk_source
from harness.memory.walk.graph import AddressMap, FreeBlocks, Graph, Heads
from harness.memory.walk.lists import prove_links
from harness.units import PAGE_SIZE
from tests.unit.fake_kernel import (
    FIRST_FREE,
    FIRST_HIGH,
    FLAGS,
    IMAGE_AT,
    LRU,
    NOTE_AT,
    OFFSETS,
    ORDERS,
    PGDAT_AT,
    PRIVATE,
    REFCOUNT,
    ROOTS_AT,
    TABLES_AT,
    TYPE,
    FakeKernel,
)

#: Six blocks on one list, in this order, and some elsewhere.
A, B, C, D, E, F = (FIRST_FREE + 4 * number for number in range(6))
OTHER, BIG, HIGH_ONE = 0x900, 0xC00, FIRST_HIGH + 0x10


def sound() -> FakeKernel:
    fake = FakeKernel()
    for frame in (A, B, C, D, E, F):
        fake.free(frame, 2)
    fake.free(OTHER, 2, kind=2)
    fake.free(BIG, 10)
    fake.free(HIGH_ONE, 2)
    return fake


def walk(fake: FakeKernel) -> FreeWalk:
    return walk_source(fake.image(), fake.gpa)


def link(fake: FakeKernel, one: int, two: int) -> None:
    """``two`` comes after ``one``; both links."""
    fake.word(fake.memmap(one) + LRU, fake.link(two))
    fake.word(fake.memmap(two) + LRU + 8, fake.link(one))


def cycle(fake: FakeKernel) -> None:
    """The fourth leads back to the second."""
    fake.word(fake.memmap(D) + LRU, fake.link(B))


def clean_ring(fake: FakeKernel) -> None:
    """C and D have a ring of their own, in which all is well; the rest is joined around them."""
    link(fake, D, C)
    link(fake, B, E)


def self_loop(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + LRU, fake.link(C))


def lonely_ring(fake: FakeKernel) -> None:
    link(fake, B, D)
    link(fake, C, C)


def crossed_lists(fake: FakeKernel) -> None:
    """The tails of two lists are exchanged, all links in order."""
    one, two = fake.head(0, 1, 2, 1), fake.head(0, 1, 2, 2)
    for last, head in ((F, two), (OTHER, one)):
        fake.word(fake.memmap(last) + LRU, fake.direct + head)
        fake.word(head + 8, fake.link(last))


def one_list_ends_in_another(fake: FakeKernel) -> None:
    """Only the forward links, as a walk would follow them."""
    fake.word(fake.memmap(C) + LRU, fake.link(OTHER))


def dangling_next(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + LRU, fake.link(0x980))


def dangling_prev(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + LRU + 8, 0xDEAD_0000_0000_0122)


def null_next(fake: FakeKernel) -> None:
    fake.word(fake.memmap(F) + LRU, 0)


def between_pages(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + LRU, fake.link(D) + 16)


def beyond_memory(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + LRU, fake.link(FIRST_HIGH + 0x10_0000))


def dangling_head(fake: FakeKernel) -> None:
    fake.word(fake.head(0, 1, 2, 1), fake.link(0x980))


def head_of_another(fake: FakeKernel) -> None:
    fake.word(fake.head(0, 1, 3, 1), fake.link(C))


def wrong_order(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + PRIVATE, 1)


def huge_order(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + PRIVATE, 1 << 63 | 2)


def not_marked_free(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C) + TYPE, 0xFFFF_FFFF, 4)


def marked_but_on_no_list(fake: FakeKernel) -> None:
    fake.word(fake.memmap(0x980) + TYPE, fake.buddy, 4)
    fake.word(fake.memmap(0x980) + PRIVATE, 0)


def wrong_zone(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C), 2 << 60)


def wrong_node(fake: FakeKernel) -> None:
    fake.word(fake.memmap(C), 1 << 62 | 1 << 60)


def on_the_list_of_another_zone(fake: FakeKernel) -> None:
    fake.free(0xA00, 2, zone=(0, 2))


def one_too_many(fake: FakeKernel) -> None:
    area = fake.area(0, 1, 2) + 16 * fake.types
    fake.word(area, fake.read(area) + 1)


def one_too_few(fake: FakeKernel) -> None:
    area = fake.area(0, 1, 10) + 16 * fake.types
    fake.word(area, 0)


def counted_out_of_range(fake: FakeKernel) -> None:
    fake.word(fake.area(0, 1, 10) + 16 * fake.types, 1 << 60)


def unaligned(fake: FakeKernel) -> None:
    fake.free(0x982, 2)


def overlapping(fake: FakeKernel) -> None:
    fake.free(C + 2, 1)


def past_the_end(fake: FakeKernel) -> None:
    fake.free(0xF80, 7)
    fake.word(fake.memmap(0xF80) + PRIVATE, 10)


WRONG: dict[Callable[[FakeKernel], None], str] = {
    cycle: "link",
    clean_ring: "ring",
    self_loop: "link",
    lonely_ring: "ring",
    crossed_lists: "crossed",
    one_list_ends_in_another: "link",
    dangling_next: "dangling",
    dangling_prev: "dangling",
    null_next: "dangling",
    between_pages: "dangling",
    beyond_memory: "dangling",
    dangling_head: "dangling",
    head_of_another: "link",
    wrong_order: "order",
    huge_order: "order",
    not_marked_free: "dangling",
    marked_but_on_no_list: "dangling",
    wrong_zone: "zone",
    wrong_node: "zone",
    on_the_list_of_another_zone: "zone",
    one_too_many: "count",
    one_too_few: "count",
    counted_out_of_range: "count",
    unaligned: "alignment",
    overlapping: "overlap",
    past_the_end: "order",
}


def test_the_lists_are_sound_before_they_are_spoilt() -> None:
    assert int(walk(sound()).free.sum()) == 6 * 4 + 4 + 1024 + 4


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_corrupt_list_is_named(spoil: Callable[[FakeKernel], None]) -> None:
    fake = sound()
    spoil(fake)
    with pytest.raises(WalkError) as caught:
        walk(fake)
    error = caught.value
    assert error.rule == WRONG[spoil], str(error)
    assert error.where in str(error)
    assert error.where.startswith(("frame 0x", "the list of node", "node 0, zone")), error.where


def test_the_error_says_which_blocks_are_meant() -> None:
    fake = sound()
    cycle(fake)
    blocks = [rf"frame {frame:#x} \(order 2\)" for frame in (D, B, A)]
    with pytest.raises(
        WalkError, match="{}: is followed by {}, which says that it comes after {}".format(*blocks)
    ):
        walk(fake)
    fake = sound()
    crossed_lists(fake)
    with pytest.raises(
        WalkError, match="order 2, Movable: runs into the list of node 0, zone 1, order 2, Recl"
    ):
        walk(fake)


def test_every_bit_of_a_block_and_of_a_head_counts() -> None:
    """Whatever single bit of a list is flipped, the walk notices."""
    kernel = find_kernel(sound().guest())
    fake = sound()
    places = [(fake.memmap(C) + offset, 64) for offset in (LRU, LRU + 8, PRIVATE)]
    places += [(fake.memmap(C) + TYPE, 32), (fake.head(0, 1, 2, 1), 64), (fake.head(0, 1, 2, 1) + 8, 64)]
    places += [(fake.area(0, 1, 2) + 16 * fake.types, 64), (fake.head(0, 1, 7, 0), 64)]
    clean = fake.memory.copy()
    for place, bits in places:
        for bit in range(bits):
            fake.memory[:] = clean
            fake.memory[place + bit // 8] ^= 1 << bit % 8
            with pytest.raises(WalkError):
                walk_source(fake.image(), fake.gpa, kernel)
    fake.memory[:] = clean
    for offset, bits in ((FLAGS, 60), (REFCOUNT, 32)):  # flags below the zone, references: no list's business
        fake.memory[fake.memmap(C) + offset + (bits // 8 - 1)] ^= 1
        assert walk_source(fake.image(), fake.gpa, kernel).free[C]


@pytest.mark.parametrize("seed", range(60))
def test_garbage_is_an_error_or_harmless(seed: int) -> None:
    """Anything, anywhere: an error of the walk or a walk, and in bounded time; never another exception."""
    rng = random.Random(seed)
    fake = sound()
    regions = [
        (IMAGE_AT, 0x4000), (PGDAT_AT, 0x3000), (ROOTS_AT, 0x2000), (TABLES_AT, 0x8000), (NOTE_AT, 0x900),
        (fake.memmap(FIRST_FREE), 0x2000), (IMAGE_AT + OFFSETS["node_data"], 64), (NOTE_AT + 24, 0x700),
    ]  # fmt: skip
    for _ in range(rng.choice((1, 3, 40))):
        start, length = rng.choice(regions)
        place = start + rng.randrange(length) // 8 * 8
        good = rng.choice((fake.direct, fake.vmemmap, 0, 1 << 63, TABLES_AT | 0x63, IMAGE_AT | 0xE3))
        fake.word(
            place, rng.choice((rng.getrandbits(64), good + rng.randrange(1 << 24), fake.read(place) ^ 1))
        )
    began = time.monotonic()
    try:
        found = walk(fake)
    except WalkError as error:
        assert error.rule
        assert error.where
    else:
        assert found.frames == FIRST_HIGH + 8 * (1 << 20) // PAGE_SIZE
    assert time.monotonic() - began < 20  # not a measure: a loop would never end


def test_a_long_ring_costs_no_more_than_a_long_list() -> None:
    """Twenty steps for a million blocks, list or ring."""
    count = 1 << 17
    frames = np.arange(count, dtype=np.int64)
    base, head = 0xFFFF_EA00_0000_0000, np.array([0xFFFF_8880_0000_0000], dtype=np.uint64)
    address = np.uint64(base) + frames.astype(np.uint64) * np.uint64(64)
    order = np.random.default_rng(1).permutation(count)
    following, previous = np.empty(count, np.uint64), np.empty(count, np.uint64)
    following[order], previous[order] = address[np.roll(order, -1)], address[np.roll(order, 1)]
    nothing = np.zeros(count, dtype=np.uint64)
    heads = Heads(head, head.copy(), head.copy(), lambda number: f"list {number}")
    graph = Graph.of(
        FreeBlocks(frames, following, previous, nothing, nothing), heads, AddressMap(base, 64, count, head)
    )
    with pytest.raises(WalkError) as caught:
        prove_links(graph)
    assert caught.value.rule == "ring"
    assert ORDERS == 11
