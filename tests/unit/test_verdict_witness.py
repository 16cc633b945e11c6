# SPDX-License-Identifier: GPL-2.0-or-later
"""The second witness in the verdict: a guest that reports too much, and one that reports too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.memory.image import Flags
from harness.memory.record import Accept, Block, PackedFlags
from harness.memory.walk import NONE, FreeWalk, Kind
from harness.memory.walk.zones import Zone
from harness.verdict.judge import JudgeInput, Judgement, RequestWitness, judge
from tests.unit.world import BLOCK, World

_SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much)
SOME = settings(max_examples=120, suppress_health_check=_SLOW)

TYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")


def walk_of(free: Flags, used_as: Kind = Kind.ANONYMOUS) -> FreeWalk:
    """What a walk finds: single movable pages, everything else some process's."""
    kind = np.where(free, np.uint8(Kind.FREE), np.uint8(used_as)).astype(np.uint8)
    zero = np.where(free, 0, NONE).astype(np.uint8)
    types = np.where(free, 1, NONE).astype(np.uint8)
    blocks = np.zeros((1, 11, len(TYPES)), dtype=np.int64)
    zone = Zone(0, 0, "DMA32", 0, len(free))
    return FreeWalk("fake", (zone,), 11, TYPES, kind, zero, zero, types, blocks)


class Quiet(World):
    """A busy past, then a request that is answered whole while nothing moves, and a busy end.

    ``lies``: pages in use that the guest reports; ``forgotten``: free pages that it leaves out.
    """

    def __init__(self, pages: int, seed: int, steps: int) -> None:
        super().__init__(pages, seed)
        self.play(steps)
        self.sync()

    def answer(self) -> None:
        """None of the requests before is answered."""

    def tell(self, lies: tuple[int, ...] = (), forgotten: tuple[int, ...] = ()) -> None:
        """One request, and its answer in two chunks."""
        self.ask()
        assert self.request is not None
        self.free = ~self.used
        for first, end in ((0, self.pages // 2), (self.pages // 2, self.pages)):
            here = slice(first, end)
            reported = self.free.copy()
            reported[list(lies)] = True
            reported[list(forgotten)] = False
            reported = reported[here]
            cleared = reported & self.bmap[here] & ~self.sent[here]
            self.bmap[here][cleared] = False
            packed = PackedFlags.pack(reported), PackedFlags.pack(cleared)
            self.log.append(Accept(self.request.id, self.generation, BLOCK, first, *packed))

    def judged(self, quiet: bool = True, owned: tuple[int, ...] = (), **seen: object) -> Judgement:
        return judge(self.told(quiet, owned, **seen))

    def told(self, quiet: bool = True, owned: tuple[int, ...] = (), **seen: object) -> JudgeInput:
        assert self.request is not None
        mine = np.zeros(self.pages, dtype=np.bool_)
        mine[list(owned)] = True
        witness = RequestWitness(
            walk_of(self.free),
            walk_of(self.free),
            {BLOCK: np.ones(self.pages, dtype=np.bool_)},
            {BLOCK: mine},
        )
        witnesses = {self.request.id: replace(witness, **seen)}
        return replace(self.case(), witnesses=witnesses, quiet=quiet)


worlds = st.builds(Quiet, st.integers(20, 200), st.integers(0, 2**32), st.integers(0, 400))


def rules(judgement: Judgement) -> set[str]:
    return {finding.rule for finding in judgement.findings}


def wrong(judgement: Judgement) -> dict[int, str]:
    return {page.page: page.rule for page in judgement.wrong_pages()}


def one(world: Quiet, flags: Flags) -> int:
    pages = np.flatnonzero(flags).tolist()
    assume(pages)
    return int(world.random.choice(pages))


@given(worlds, st.booleans())
@SOME
def test_a_guest_that_tells_the_truth_passes(world: Quiet, quiet: bool) -> None:
    world.tell()
    judgement = world.finish().judged(quiet)  # type: ignore[attr-defined]
    assert judgement.verdict == "pass", judgement.findings
    heard = judgement.testimony
    free = int(world.free.sum())
    assert (heard.answered, heard.judged, heard.missing) == (1, 1, [])
    assert heard.standing == ({"free-at-request": free} if free else {})
    assert heard.differences == ({"both": free} if quiet else {})


@given(worlds)
@SOME
def test_a_page_in_use_that_was_reported(world: Quiet) -> None:
    """W5: bytes cannot show it, as it did not change; the second witness can."""
    page = one(world, world.used & world.bmap & ~world.sent & (world.content != 0))
    world.tell(lies=(page,))
    world.finish()
    assert world.judged(quiet=False).verdict == "pass"
    judgement = world.judged(owned=(page,))
    assert judgement.verdict == "fail"
    assert wrong(judgement) == {page: "skipped-though-owned"}
    assert rules(judgement) == {"skipped-though-owned", "reported-though-owned"}
    (finding,) = (one for one in judgement.findings if one.rule == "reported-though-owned")
    assert (finding.count, finding.pages, finding.kind) == (1, (page,), "witness")
    assert judgement.testimony.standing["owned"] == 1
    assert world.judged(quiet=False, owned=(page,)).verdict == "fail"


@given(worlds)
@SOME
def test_owned_and_reported_fails_even_if_it_was_sent(world: Quiet) -> None:
    page = one(world, world.used & world.sent)
    world.tell(lies=(page,))
    judgement = world.finish().judged(owned=(page,))  # type: ignore[attr-defined]
    assert rules(judgement) == {"reported-though-owned"}
    assert wrong(judgement) == {}
    assert judgement.verdict == "fail"


@given(worlds)
@SOME
def test_undecided_is_counted_and_on_a_quiet_guest_a_failure(world: Quiet) -> None:
    page = one(world, world.used)
    world.tell(lies=(page,))
    world.finish()
    judgement = world.judged()
    assert rules(judgement) == {"reported-undecided"}
    assert judgement.findings[0].pages == (page,)
    assert wrong(judgement) == {}
    busy = world.judged(quiet=False)
    assert busy.verdict == "pass"
    assert busy.observed["reported-undecided"] == 1


@given(worlds)
@SOME
def test_what_changed_or_was_nearly_free_is_decided(world: Quiet) -> None:
    page = one(world, world.used)
    world.tell(lies=(page,))
    world.finish()
    same = np.ones(world.pages, dtype=np.bool_)
    same[page] = False
    judgement = world.judged(unchanged={BLOCK: same})
    assert judgement.verdict == "pass"
    assert judgement.testimony.standing["changed"] == 1
    nearly = walk_of(world.free)
    nearly.kind[page] = Kind.PER_CPU
    judgement = world.judged(at_request=nearly)
    assert judgement.verdict == "pass"
    assert judgement.testimony.standing["nearly-free"] == 1
    later = world.free.copy()
    later[page] = True
    judgement = world.judged(at_answer=walk_of(later))
    assert judgement.verdict == "pass"
    assert judgement.testimony.standing["free-at-answer"] == 1


@given(worlds)
@SOME
def test_a_free_page_that_was_left_out(world: Quiet) -> None:
    page = one(world, ~world.used)
    world.tell(forgotten=(page,))
    world.finish()
    judgement = world.judged()
    assert rules(judgement) == {"witnesses-disagree"}
    assert judgement.findings[0].pages == (page,)
    assert judgement.findings[0].count == 1
    assert judgement.testimony.differences["only-walked left-out"] == 1
    # A busy guest may leave out what it likes; so may a quiet one that took the page meanwhile.
    assert world.judged(quiet=False).verdict == "pass"
    later = world.free.copy()
    later[page] = False
    assert world.judged(at_answer=walk_of(later)).verdict == "pass"
    merged = walk_of(world.free)
    merged.order[page] = 3
    assert world.judged(at_answer=merged).verdict == "pass"


@given(worlds)
@SOME
def test_of_half_an_answer_only_that_half_is_compared(world: Quiet) -> None:
    page = one(world, ~world.used)
    world.tell(forgotten=(page,))
    half = world.pages // 2
    del world.log[-1 if page >= half else -2]
    world.finish()
    case = replace(world.told(at_answer=None), statistics=None)
    assert "witnesses-disagree" not in rules(judge(case))


def test_no_walk_is_said_and_is_no_agreement() -> None:
    world = Quiet(50, 1, 100)
    world.tell()
    world.finish()
    judgement = world.judged(at_request=None, missing=("torn",))
    assert (judgement.testimony.judged, judgement.testimony.missing) == (0, ["torn"])
    unseen = judge(replace(world.case(), quiet=True))
    assert (unseen.testimony.answered, unseen.testimony.judged) == (1, 0)
    assert unseen.testimony.missing == ["nobody looked at the request"]
    assert judge(replace(world.case(), arm="off")).testimony.answered == 0


@pytest.mark.parametrize("frame", [0, 7])
def test_pages_are_named_by_their_number_in_the_block(frame: int) -> None:
    """A block that begins above frame 0: frames are not pages."""
    world = Quiet(40, 3, 0)
    page = int(np.flatnonzero(world.used)[0])
    world.tell(lies=(page,))
    world.finish()
    case = world.told()
    state = case.blocks[0]
    (witness,) = case.witnesses.values()
    moved = replace(state.block, gpa=((frame * 4096, 0, world.pages * 4096),))
    free = np.concatenate((np.zeros(frame, dtype=np.bool_), world.free))
    log = tuple(
        entry if isinstance(entry, Accept) else replace(entry, frames=frame + world.pages)
        for entry in case.log
    )
    seen = replace(witness, at_request=walk_of(free), at_answer=walk_of(free))
    broken = replace(
        case,
        blocks=(replace(state, block=moved),),
        log=log,
        witnesses=dict.fromkeys(case.witnesses, seen),
    )
    judgement = judge(broken)
    assert rules(judgement) == {"reported-undecided"}
    assert judgement.findings[0].pages == (page,)


def test_pages_that_are_free_where_no_driver_may_look() -> None:
    """Nothing is lost by it, so only the second witness can tell."""
    world = Quiet(64, 1, 40)
    page = int(np.flatnonzero(~world.used)[0])
    world.tell()
    world.finish()

    def seen_as(kind: Kind, migrate_type: int) -> FreeWalk:
        walk = walk_of(world.free)
        walk.kind[page], walk.migrate_type[page] = np.uint8(kind), np.uint8(migrate_type)
        return walk

    for kind, migrate_type in ((Kind.PER_CPU, NONE), (Kind.FREE, TYPES.index("Isolate"))):
        there = seen_as(kind, migrate_type)
        found = world.judged(at_request=there, at_answer=there)
        assert {finding.rule: finding.pages for finding in found.findings} == {"witnesses-disagree": (page,)}
        assert world.judged(quiet=False, at_request=there, at_answer=there).verdict == "pass"
        # It has left, or come, in between: it may have passed through a list.
        assert world.judged(at_request=there).verdict == "pass"
        assert world.judged(at_answer=there).verdict == "pass"


def test_memory_that_stays_where_it_is_has_to_have_been_reported() -> None:
    """Else nothing shows that what was reported of it was let alone."""
    world = Quiet(40, 3, 0)
    world.tell()
    world.finish()
    case = replace(world.told(), left_where_it_is=(Block("shared", 8, ((40 * 4096, 0, 8 * 4096),)),))
    assert judge(case).verdict == "inconclusive"
    assert "of what stays where it is no page was reported" in judge(case).reason
    reported = {**(case.statistics or {}), "bad-pages": 8}
    (seen,) = case.witnesses.values()
    assert seen.at_request is not None
    there = walk_of(np.concatenate((seen.at_request.free, np.ones(8, dtype=np.bool_))))
    # It is looked at like all memory in files, and walked.
    same = {BLOCK: np.ones(40, dtype=np.bool_), "shared": np.ones(8, dtype=np.bool_)}
    seen = replace(seen, at_request=there, at_answer=there, unchanged=same)
    log = tuple(entry if isinstance(entry, Accept) else replace(entry, frames=48) for entry in case.log)
    told = replace(case, statistics=reported, witnesses=dict.fromkeys(case.witnesses, seen), log=log)
    judgement = judge(told)
    assert judgement.verdict == "pass", judgement.findings
    # What of it was reported, nobody has put down: it was not left out.
    assert judgement.testimony.differences["only-walked not-asked-for"] == 8
