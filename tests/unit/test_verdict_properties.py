# SPDX-License-Identifier: GPL-2.0-or-later
"""One page wrong in each way there is: each must be found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.memory.record import Accept, PackedFlags, Request
from harness.verdict.judge import JudgeInput, Judgement, judge
from tests.unit.world import BLOCK, Faults, World, with_state

# Playing a world counts as drawing it, and is slow on a busy machine: that is no fault of the test.
_SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much)
MANY = settings(max_examples=300, suppress_health_check=_SLOW)
SOME = settings(max_examples=120, suppress_health_check=_SLOW)
FEW = settings(max_examples=80, suppress_health_check=_SLOW)

PAGES = st.integers(20, 300)
SEEDS = st.integers(0, 2**32)
STEPS = st.integers(0, 600)

worlds = st.builds(lambda pages, seed, steps: World(pages, seed).play(steps).finish(), PAGES, SEEDS, STEPS)


def rules(judgement: Judgement) -> set[str]:
    return {finding.rule for finding in judgement.findings}


def wrong(judgement: Judgement) -> dict[int, str]:
    return {page.page: page.rule for page in judgement.wrong_pages()}


def pick(world: World, pages: np.ndarray | list[int]) -> int:
    assume(len(pages) > 0)
    return int(world.random.choice(list(pages)))


def changed(case: JudgeInput, page: int, zero_source: bool, zero_there: bool) -> JudgeInput:
    """The same, but this page holds other things: it differs unless both are zero."""
    state = case.blocks[0]
    source, there = state.zero_on_source.copy(), state.zero_on_destination.copy()
    source[page], there[page] = zero_source, zero_there
    differing = np.setdiff1d(state.differing, [page])
    if not (zero_source and zero_there):
        differing = np.union1d(differing, [page])
    return with_state(case, zero_on_source=source, zero_on_destination=there, differing=differing)


def unproven(case: JudgeInput, page: int) -> JudgeInput:
    """The same, but the page holds something else now than at every request."""
    unchanged = {request: {BLOCK: blocks[BLOCK].copy()} for request, blocks in case.unchanged.items()}
    for blocks in unchanged.values():
        blocks[BLOCK][page] = False
    return replace(case, unchanged=unchanged)


def only(case: JudgeInput, before: JudgeInput, page: int, rule: str) -> None:
    """This page is wrong by this rule, and no other page has changed its category."""
    now, then = judge(case), judge(before)
    assert now.verdict == "fail"
    assert wrong(now) == {page: rule}
    assert rules(now) == {rule}
    differs = np.flatnonzero(now.blocks[0].skipped != then.blocks[0].skipped)
    assert set(differs.tolist()) <= {page}
    found = now.wrong_pages()[0]
    assert (found.block, found.frame) == (BLOCK, page)


@given(worlds)
@MANY
def test_a_device_that_obeys_always_passes(world: World) -> None:
    judgement = judge(world.case())
    assert judgement.verdict == "pass", judgement.findings
    assert not judgement.findings
    pages = judgement.pages
    assert pages.wrong == 0
    assert pages.equal + pages.skipped + sum(pages.explained.values()) == pages.total == world.pages


@given(worlds)
@SOME
def test_skipped_is_what_was_cleared_and_never_sent(world: World) -> None:
    skipped = set(np.flatnonzero(judge(world.case()).blocks[0].skipped).tolist())
    given_back = {page for page in world.skipped_pages() if world.hole[page]}
    assert skipped <= set(world.skipped_pages())
    assert set(world.skipped_pages()) - skipped <= given_back


@given(worlds, st.booleans(), st.booleans())
@SOME
def test_a_sent_page_that_differs(world: World, zero_source: bool, zero_there: bool) -> None:
    assume(not (zero_source and zero_there))
    case, page = world.case(), pick(world, np.flatnonzero(world.sent))
    only(changed(case, page, zero_source, zero_there), case, page, "differs-though-sent")


@given(worlds)
@SOME
def test_a_skipped_page_that_is_not_zero_there(world: World) -> None:
    case, page = world.case(), pick(world, world.skipped_pages())
    only(changed(case, page, False, False), case, page, "skipped-but-not-zero-on-destination")


@given(worlds)
@SOME
def test_a_skipped_page_that_was_written_since(world: World) -> None:
    case, page = world.case(), pick(world, world.skipped_pages())
    broken = unproven(changed(case, page, False, True), page)
    only(broken, case, page, "skipped-but-changed-since-request")
    assert judge(broken).wrong_pages()[0].request == world.last_request_of(page)


@given(worlds)
@SOME
def test_unchanged_since_an_older_request_is_no_excuse(world: World) -> None:
    """Cleared twice: only the request of the clearing that is in force counts."""
    case, page = world.case(), pick(world, world.skipped_pages())
    last = world.last_request_of(page)
    unchanged = {request: {BLOCK: blocks[BLOCK].copy()} for request, blocks in case.unchanged.items()}
    for request, blocks in unchanged.items():
        blocks[BLOCK][page] = request != last
    broken = replace(changed(case, page, False, True), unchanged=unchanged)
    only(broken, case, page, "skipped-but-changed-since-request")


@given(worlds)
@SOME
def test_a_missed_write_of_zeros_is_luck_not_a_pass(world: World) -> None:
    case, page = world.case(), pick(world, world.skipped_pages())
    hole = case.blocks[0].hole_on_source
    assert hole is not None
    hole = hole.copy()
    hole[page] = False
    broken = with_state(unproven(changed(case, page, True, True), page), hole_on_source=hole)
    judgement = judge(broken)
    assert judgement.verdict == "fail"
    assert rules(judgement) == {"write-missed"}
    assert judgement.findings[0].pages == (page,)
    assert judgement.pages.wrong == 0
    # The same page, given back by the guest: nothing was written.
    hole = hole.copy()
    hole[page] = True
    judgement = judge(with_state(broken, hole_on_source=hole))
    assert judgement.verdict == "pass"
    assert judgement.observed["given-back"] >= 1


@given(worlds)
@SOME
def test_no_digest_no_proof(world: World) -> None:
    pages = [page for page in world.skipped_pages() if world.content[page] != world.there[page]]
    case, page = world.case(), pick(world, pages)
    request = world.last_request_of(page)
    broken = replace(case, unchanged={i: blocks for i, blocks in case.unchanged.items() if i != request})
    assert wrong(judge(broken))[page] == "skipped-without-digest"
    assert rules(judge(broken)) == {"skipped-without-digest"}
    believed = judge(replace(broken, strict=False))
    assert believed.verdict == "pass"
    assert believed.observed["skipped-believed"] >= 1


def forget(world: World, page: int) -> tuple[Request | Accept, ...]:
    """The log without any trace of this page."""

    def cleaned(entry: Request | Accept) -> Request | Accept:
        if not isinstance(entry, Accept) or not entry.first <= page < entry.first + entry.cleared.pages:
            return entry
        cleared, reported = entry.cleared.flags().copy(), entry.reported.flags().copy()
        cleared[page - entry.first] = reported[page - entry.first] = False
        return replace(entry, cleared=PackedFlags.pack(cleared), reported=PackedFlags.pack(reported))

    return tuple(cleaned(entry) for entry in world.log)


@given(worlds)
@SOME
def test_a_page_that_was_forgotten(world: World) -> None:
    """Neither sent nor skipped: wrong if it differs, and a failure even if it happens to be equal."""
    case, page = world.case(), pick(world, world.skipped_pages())
    broken = replace(case, log=forget(world, page), statistics=None)
    judgement = judge(broken)
    assert rules(judgement) == {"neither-sent-nor-skipped"}
    if world.content[page]:
        only(broken, case, page, "neither-sent-nor-skipped")
    else:
        assert judgement.pages.wrong == 0
        assert judgement.findings[0].pages == (page,)


@given(worlds)
@SOME
def test_a_sent_bit_that_is_missing(world: World) -> None:
    never_skipped = world.sent.copy()
    for entry in world.log:
        if isinstance(entry, Accept):
            never_skipped[entry.first : entry.first + entry.cleared.pages] &= ~entry.cleared.flags()
    case, page = world.case(), pick(world, np.flatnonzero(never_skipped))
    sent = world.sent.copy()
    sent[page] = False
    judgement = judge(with_state(case, sent=sent))
    expected = "arrived-unsent" if world.there[page] else "neither-sent-nor-skipped"
    assert rules(judgement) == {expected}
    assert judgement.findings[0].pages == (page,)
    assert judgement.pages.wrong == 0


def tampered(world: World, change: Callable[[Accept], Accept]) -> tuple[JudgeInput, Accept]:
    """One answer of the log, that cleared something, changed."""
    numbers = [n for n, entry in enumerate(world.log) if isinstance(entry, Accept) and entry.cleared.count()]
    number = pick(world, numbers)
    log = list(world.log)
    entry = log[number]
    assert isinstance(entry, Accept)
    log[number] = change(entry)
    return replace(world.case(), log=tuple(log)), entry


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("accept-after-sync", lambda accept: replace(accept, generation=accept.generation + 1)),
        ("accept-without-request", lambda accept: replace(accept, id=77)),
        ("hint-in-arm-info", lambda accept: replace(accept, id=2**64 - 1)),
    ],
)
@given(world=worlds)
@FEW
def test_an_answer_that_should_not_have_been_applied(
    rule: str, change: Callable[[Accept], Accept], world: World
) -> None:
    broken, accept = tampered(world, change)
    judgement = judge(broken)
    assert judgement.verdict == "fail"
    assert rules(judgement) - {"skipped-by-unacceptable-answer", "skipped-without-digest"} == {rule}
    here = set(range(accept.first, accept.first + accept.cleared.pages))
    assert set(wrong(judgement)) <= here
    assert set(wrong(judgement).values()) <= {"skipped-by-unacceptable-answer"}
    # Every page that differs and was skipped because of it is named.
    assert set(wrong(judgement)) == {
        page
        for page in world.skipped_pages()
        if page in here
        and world.content[page] != world.there[page]
        and accept.cleared.flags()[page - accept.first]
        and last_accept(world, page) is accept
    }


def last_accept(world: World, page: int) -> Accept | None:
    found = None
    for entry in world.log:
        inside = isinstance(entry, Accept) and entry.first <= page < entry.first + entry.cleared.pages
        if inside and entry.cleared.flags()[page - entry.first]:
            found = entry
    return found


@given(worlds)
@SOME
def test_cleared_but_not_reported(world: World) -> None:
    chosen: list[int] = []

    def change(accept: Accept) -> Accept:
        page = pick(world, np.flatnonzero(accept.cleared.flags()))
        chosen.append(page + accept.first)
        reported = accept.reported.flags().copy()
        reported[page] = False
        return replace(accept, reported=PackedFlags.pack(reported))

    broken, accept = tampered(world, change)
    judgement = judge(replace(broken, statistics=None))
    assert rules(judgement) - {"skipped-by-unacceptable-answer"} == {"cleared-not-reported"}
    # It is wrong if it was skipped by this very clearing and differs; a later one may have been proper.
    page = chosen[0]
    skipped = page in world.skipped_pages() and world.content[page] != world.there[page]
    assert (page in wrong(judgement)) == (skipped and last_accept(world, page) is accept)
    assert set(wrong(judgement)) <= {page}


@given(worlds)
@SOME
def test_an_answer_to_an_older_request(world: World) -> None:
    numbers = [n for n, entry in enumerate(world.log) if isinstance(entry, Accept)]
    number = pick(world, numbers)
    entry = world.log[number]
    assert isinstance(entry, Accept)
    newer = Request(entry.id + 100_000, entry.generation, 0, world.pages)
    log = (*world.log[:number], newer, *world.log[number:])
    judgement = judge(replace(world.case(), log=log, statistics=None))
    assert "accept-of-older-request" in rules(judgement)
    assert judgement.verdict == "fail"


@given(worlds)
@SOME
def test_reported_outside_the_window(world: World) -> None:
    numbers = [n for n, e in enumerate(world.log) if isinstance(e, Accept) and e.reported.count()]
    number = pick(world, numbers)
    accept = world.log[number]
    assert isinstance(accept, Accept)
    page = int(np.flatnonzero(accept.reported.flags())[-1]) + accept.first
    log = [
        replace(entry, frames=page) if isinstance(entry, Request) and entry.id == accept.id else entry
        for entry in world.log
    ]
    judgement = judge(replace(world.case(), log=tuple(log)))
    assert "answer-outside-window" in rules(judgement)


@given(worlds)
@SOME
def test_a_name_explains_a_page_and_only_that_page(world: World) -> None:
    case, page = world.case(), pick(world, np.flatnonzero(world.sent))
    broken = changed(case, page, False, False)
    judgement = judge(with_state(broken, named={page: "kvmclock"}))
    assert judgement.verdict == "pass"
    assert judgement.pages.explained == {"kvmclock": 1}
    other = (page + 1) % world.pages
    only(with_state(broken, named={other: "kvmclock"}), case, page, "differs-though-sent")


@given(PAGES, SEEDS, st.integers(200, 600))
@SOME
def test_a_device_that_ignores_the_generation(pages: int, seed: int, steps: int) -> None:
    world = World(pages, seed, Faults(ignore_generation=True)).play(steps).finish()
    generations = {entry.id: entry.generation for entry in world.log if isinstance(entry, Request)}
    stale = [e for e in world.log if isinstance(e, Accept) and e.generation != generations[e.id]]
    judgement = judge(world.case())
    assert ("accept-after-sync" in rules(judgement)) == bool(stale)
    # Whatever the guest lost is named.
    lost = {page for page in range(pages) if world.used[page] and world.content[page] != world.there[page]}
    assert lost <= set(wrong(judgement))


@given(PAGES, SEEDS, st.integers(200, 600))
@SOME
def test_a_log_that_is_armed_late(pages: int, seed: int, steps: int) -> None:
    """The trap of KVM's manual protection: the record is flawless, the memory is not."""
    world = World(pages, seed, Faults(log_armed_late=True)).play(steps).finish()
    judgement = judge(world.case())
    lost = {page for page in range(pages) if world.used[page] and world.content[page] != world.there[page]}
    assert lost <= set(wrong(judgement))
    assert (judgement.verdict == "pass") == (not judgement.findings)
    assert rules(judgement) <= {"skipped-but-changed-since-request", "write-missed"}
