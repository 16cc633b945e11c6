# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is stopped between two stores of a list operation: store by store, as the kernel does them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from harness.memory.walk import FreeWalk, KernelLayout, Kind, TornError, WalkError, find_kernel, walk_source
from harness.memory.walk.extras import Extras
from tests.unit.fake_kernel import FIRST_FREE, FIRST_HIGH, LRU, PRIVATE, REFCOUNT, TYPE, ZONE_LOCK, FakeKernel

FRAMES = [FIRST_FREE + 4 * number for number in range(5)]
LIST = (0, 1, 2, 1)
POISON = (0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122)


def sound(locked: bool = True) -> FakeKernel:
    fake = FakeKernel()
    for frame in FRAMES:
        fake.free(frame, 2)
    fake.free(0xC00, 10)
    fake.free(FIRST_HIGH, 2)
    if locked:
        fake.word(fake.zone_at(0, 1) + ZONE_LOCK, 1, 4)
    return fake


def kernel(fake: FakeKernel) -> KernelLayout:
    return replace(find_kernel(fake.guest()), extras=Extras(zone_lock=ZONE_LOCK))


def walk(fake: FakeKernel) -> FreeWalk:
    return walk_source(fake.image(), fake.gpa, kernel(fake))


def _count(fake: FakeKernel, change: int) -> None:
    area = fake.area(*LIST[:3]) + 16 * fake.types
    fake.word(area, fake.read(area) + change)


def take_off(fake: FakeKernel, frame: int) -> Iterator[None]:
    """list_del(), __ClearPageBuddy(), set_page_private(), nr_free--: a step is a store."""
    page = fake.memmap(frame)
    after, before = fake.read(page + LRU), fake.read(page + LRU + 8)
    fake.word(fake.physical(after) + 8, before)
    yield
    fake.word(fake.physical(before), after)
    yield
    fake.word(page + LRU, POISON[0])
    yield
    fake.word(page + LRU + 8, POISON[1])
    yield
    fake.word(page + TYPE, 0xFFFF_FFFF, 4)
    yield
    fake.word(page + PRIVATE, 0)
    yield
    _count(fake, -1)


def put_on(fake: FakeKernel, frame: int, after: int, *, marked: bool) -> Iterator[None]:
    """set_buddy_order(), list_add(), nr_free++; or, as expand() does it, the mark comes last."""
    page, new = fake.memmap(frame), fake.link(frame)

    def mark() -> Iterator[None]:
        fake.word(page + PRIVATE, 2)
        yield
        fake.word(page + TYPE, fake.buddy, 4)
        yield

    for inner in range(frame, frame + 4):
        fake.word(fake.memmap(inner) + REFCOUNT, 0, 4)
    if marked:
        yield from mark()
    before = fake.read(fake.physical(after) + 8)
    fake.word(fake.physical(after) + 8, new)
    yield
    fake.word(page + LRU, after)
    yield
    fake.word(page + LRU + 8, before)
    yield
    fake.word(fake.physical(before), new)
    yield
    _count(fake, 1)
    yield
    if not marked:
        yield from mark()


def _head(fake: FakeKernel) -> int:
    return fake.direct + fake.head(*LIST)


NEW = 0x980
OPERATIONS: dict[str, tuple[int, Callable[[FakeKernel], Iterator[None]]]] = {
    "take the first": (FRAMES[0], lambda fake: take_off(fake, FRAMES[0])),
    "take one within": (FRAMES[2], lambda fake: take_off(fake, FRAMES[2])),
    "take the last": (FRAMES[-1], lambda fake: take_off(fake, FRAMES[-1])),
    "take the only one": (0xC00, lambda fake: take_off(fake, 0xC00)),
    "put at the tail": (NEW, lambda fake: put_on(fake, NEW, _head(fake), marked=True)),
    "put within": (NEW, lambda fake: put_on(fake, NEW, fake.link(FRAMES[2]), marked=True)),
    "put, then mark": (NEW, lambda fake: put_on(fake, NEW, fake.link(FRAMES[0]), marked=False)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_walk_at_every_store_of_an_operation(name: str) -> None:
    """The block in the processor's hands is free or in transit; all others are found as ever."""
    moving, operation = OPERATIONS[name]
    fake = sound()
    if moving == 0xC00:  # its list's count is another one
        fake.area = _as_order_ten(fake)  # type: ignore[method-assign]
    others = {*FRAMES, 0xC00, FIRST_HIGH} - {moving}
    steps = 0
    for _ in operation(fake):
        steps += 1
        found = walk(fake)
        assert {frame for frame in others if found.free[frame]} == others, steps
        kind = Kind(found.kind[moving])
        assert kind in (Kind.FREE, Kind.IN_TRANSIT, Kind.LOOSE), (steps, kind)
        assert (moving in found.in_transit) == (kind is Kind.IN_TRANSIT)
    assert steps >= 6


def _as_order_ten(fake: FakeKernel) -> Callable[[int, int, int], int]:
    area = fake.area
    return lambda node, index, order: area(node, index, 10 if (node, index, order) == LIST[:3] else order)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_without_a_lock_is_corrupt(name: str) -> None:
    _, operation = OPERATIONS[name]
    fake = sound(locked=False)
    refused = 0
    for _ in operation(fake):
        try:
            walk(fake)
        except WalkError as error:
            assert not isinstance(error, TornError)
            refused += 1
    assert refused >= 4


def test_a_lock_elsewhere_excuses_nothing() -> None:
    fake = sound(locked=False)
    fake.word(fake.zone_at(0, 2) + ZONE_LOCK, 1, 4)
    for _ in zip(range(2), take_off(fake, FRAMES[2]), strict=False):
        pass
    with pytest.raises(WalkError) as caught:
        walk(fake)
    assert caught.value.rule == "link"


def test_two_processors_in_two_zones() -> None:
    fake = sound()
    fake.free(FIRST_HIGH + 0x100, 2)
    fake.word(fake.zone_at(0, 2) + ZONE_LOCK, 1, 4)
    next(take_off(fake, FRAMES[1]))
    next(take_off(fake, FIRST_HIGH))
    found = walk(fake)
    assert set(found.in_transit) == {FRAMES[1], FIRST_HIGH}
    assert {Kind(found.kind[FRAMES[1] + inner]) for inner in range(4)} == {Kind.IN_TRANSIT}
    assert found.free[FIRST_HIGH + 0x100]


@pytest.mark.parametrize("damage", [1, 3])
def test_more_than_one_operation_can_leave_is_torn(damage: int) -> None:
    fake = sound()
    for frame in FRAMES[: damage + 1]:
        fake.word(fake.memmap(frame) + LRU, POISON[0])
        fake.word(fake.memmap(frame) + LRU + 8, POISON[1])
    with pytest.raises(TornError) as caught:
        walk(fake)
    assert "the lock of node 0, zone 1 is held" in str(caught.value)
    assert caught.value.hint is not None


def test_a_count_may_lag_by_one_under_the_lock_only() -> None:
    for locked, change, well in ((True, 1, True), (True, -1, True), (True, 2, False), (False, 1, False)):
        fake = sound(locked)
        _count(fake, change)
        if well:
            assert walk(fake).free[FRAMES[0]]
        else:
            with pytest.raises(WalkError) as caught:
                walk(fake)
            assert caught.value.rule == "count"


def test_a_corrupt_list_stays_corrupt_under_a_lock() -> None:
    """A cross link is no operation that was interrupted, whatever lock is held."""
    fake = sound()
    fake.free(0x900, 2, kind=2)
    fake.word(fake.memmap(FRAMES[1]) + LRU, fake.link(0x900))
    with pytest.raises(WalkError):
        walk(fake)


def test_a_page_between_two_that_are_lost_is_left_out_only_if_both_mean_it() -> None:
    """Half on a list, and not marked as free: both neighbours have to lead to the same page."""
    fake = sound()
    fake.word(fake.memmap(FRAMES[1]) + TYPE, 0xFFFF_FFFF, 4)
    assert walk(fake).in_transit == (FRAMES[1],)
    # The one behind it points elsewhere: two things are wrong, and no single block explains them.
    fake.word(fake.memmap(FRAMES[2]) + LRU + 8, POISON[1])
    with pytest.raises(WalkError):
        walk(fake)


def test_a_block_that_two_others_claim_is_not_taken_out() -> None:
    """Whichever of the two is right, the list of the other is corrupt."""
    fake = sound()
    fake.free(0x900, 2, kind=2)
    one = fake.link(FRAMES[1])
    fake.word(fake.memmap(0x900) + LRU, one)
    fake.word(fake.memmap(0x900) + LRU + 8, one)
    with pytest.raises(WalkError):
        walk(fake)
