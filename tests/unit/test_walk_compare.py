# SPDX-License-Identifier: GPL-2.0-or-later
"""Two witnesses: where they differ, and what is known of each page that was reported."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MachineryError
from harness.memory.walk import (
    NONE,
    FreeWalk,
    Kind,
    PageStanding,
    compare_witnesses,
    judge_reported,
    to_frames,
    to_pages,
)
from harness.memory.walk.zones import Zone
from harness.units import PAGE_SIZE

FRAMES = 64
TYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")


def walk(kinds: dict[int, Kind], isolated: tuple[int, ...] = ()) -> FreeWalk:
    """All frames are the kernel's but these; free ones are single movable pages."""
    kind = np.full(FRAMES, Kind.KERNEL, dtype=np.uint8)
    for frame, one in kinds.items():
        kind[frame] = one
    free = kind == Kind.FREE
    types = np.where(free, 1, NONE).astype(np.uint8)
    types[list(isolated)] = TYPES.index("Isolate")
    zero = np.where(free, 0, NONE).astype(np.uint8)
    blocks = np.zeros((1, 11, len(TYPES)), dtype=np.int64)
    zone = Zone(0, 0, "DMA32", 0, FRAMES)
    return FreeWalk("fake", (zone,), 11, TYPES, kind, zero, zero, types, blocks)


def flags(*frames: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(FRAMES, dtype=np.bool_)
    found[list(frames)] = True
    return found


def test_a_quiet_guest_whose_witnesses_agree() -> None:
    outside = walk({1: Kind.FREE, 2: Kind.FREE, 3: Kind.FREE, 4: Kind.PER_CPU, 5: Kind.FREE}, isolated=(3,))
    both = compare_witnesses(flags(1, 2, 4), outside, asked=~flags(5))
    assert both.agree
    assert both.counts == {"both": 2, "only-reported per-cpu": 1, "only-walked isolated": 1,
                           "only-walked not-asked-for": 1}  # fmt: skip
    assert both.only_walked["isolated"].tolist() == [3]


@pytest.mark.parametrize("kind", [Kind.SLAB, Kind.ANONYMOUS, Kind.LOOSE, Kind.KERNEL, Kind.ABSENT])
def test_a_page_that_is_reported_and_in_use_is_no_agreement(kind: Kind) -> None:
    both = compare_witnesses(flags(1, 2), walk({1: Kind.FREE, 2: kind}))
    assert not both.agree
    assert both.only_reported[kind.label].tolist() == [2]


def test_a_free_page_that_was_left_out_is_no_agreement_on_a_quiet_guest() -> None:
    both = compare_witnesses(flags(), walk({1: Kind.FREE}))
    assert (both.agree, both.unexplained) == (False, 1)


def test_what_changed_until_a_later_walk_is_no_contradiction() -> None:
    before = walk({1: Kind.FREE, 2: Kind.SLAB, 3: Kind.SLAB})
    after = walk({1: Kind.KERNEL, 2: Kind.FREE})
    both = compare_witnesses(flags(2, 3), before, later=after)
    assert {label: found.tolist() for label, found in both.only_reported.items()} == {
        "freed-since": [2],
        "slab": [3],
    }
    assert {label: found.tolist() for label, found in both.only_walked.items()} == {"taken-since": [1]}
    assert both.unexplained == 1


def test_the_standing_of_every_reported_page() -> None:
    request = walk({1: Kind.FREE, 3: Kind.PER_CPU, 9: Kind.FREE})
    answer = walk({2: Kind.FREE, 4: Kind.IN_TRANSIT, 9: Kind.ANONYMOUS})
    judged = judge_reported(
        flags(1, 2, 3, 4, 5, 6, 7, 9), request, answer, unchanged=~flags(5, 9), owned=flags(6, 8, 9)
    )
    expected = {
        1: PageStanding.FREE_AT_REQUEST,
        2: PageStanding.FREE_AT_ANSWER,
        3: PageStanding.NEARLY_FREE,
        4: PageStanding.NEARLY_FREE,
        5: PageStanding.CHANGED,
        6: PageStanding.OWNED,
        7: PageStanding.UNDECIDED,
        8: PageStanding.NOT_REPORTED,  # owned, but nobody called it free
        9: PageStanding.FREE_AT_REQUEST,  # taken and written after: the dirty log's business
    }
    assert {frame: PageStanding(judged.standing[frame]) for frame in expected} == expected
    assert judged.counts["owned"] == 1
    assert judged.frames(PageStanding.OWNED).tolist() == [6]


@given(st.data())
def test_only_pages_free_at_neither_end_can_break_the_contract(data: st.DataObject) -> None:
    kinds = st.dictionaries(st.integers(0, FRAMES - 1), st.sampled_from(list(Kind)))
    some = st.sets(st.integers(0, FRAMES - 1))
    request, answer = walk(data.draw(kinds)), walk(data.draw(kinds))
    reported, owned, same = (flags(*data.draw(some)) for _ in range(3))
    judged = judge_reported(reported, request, answer, unchanged=same, owned=owned)
    standing = judged.standing
    assert ((standing == PageStanding.NOT_REPORTED) == ~reported).all()
    assert ((standing == PageStanding.OWNED) == (reported & owned & ~request.free & ~answer.free)).all()
    undecided = standing == PageStanding.UNDECIDED
    assert not (undecided & (request.free | answer.free | ~same)).any()
    assert sum(judged.counts.values()) == int(reported.sum())


def test_without_a_second_walk_and_digests_little_can_be_said() -> None:
    judged = judge_reported(flags(1, 2, 3), walk({1: Kind.FREE, 2: Kind.PER_CPU}))
    assert judged.counts == {"free-at-request": 1, "nearly-free": 1, "undecided": 1}


def test_pages_of_a_block_and_frames_of_the_guest() -> None:
    gpa = [(0, 0, 8 * PAGE_SIZE), (32 * PAGE_SIZE, 8 * PAGE_SIZE, 64 * PAGE_SIZE)]
    pages = np.zeros(20, dtype=np.bool_)
    pages[[0, 7, 8, 19]] = True
    frames = to_frames(pages, gpa, FRAMES)
    assert np.flatnonzero(frames).tolist() == [0, 7, 32, 43]
    assert (to_pages(frames, gpa, 20) == pages).all()
    assert not to_frames(pages, [(0, 40 * PAGE_SIZE, PAGE_SIZE)], FRAMES).any()


def test_witnesses_of_different_guests_are_refused() -> None:
    with pytest.raises(MachineryError, match="64 guest frames, reported covers 65"):
        compare_witnesses(np.zeros(65, dtype=np.bool_), walk({}))
    with pytest.raises(MachineryError, match="owned covers 1"):
        judge_reported(flags(), walk({}), owned=np.zeros(1, dtype=np.bool_))
