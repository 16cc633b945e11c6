# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict in cases that a random player does not come to: arms, guests, expectations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.memory.record import Accept, Block, PackedFlags, Request
from harness.scenario.expectations import Expect
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, GuestChecks, JudgeInput, SentOverFloor, judge
from harness.verdict.log import reached

HINT = 2**64 - 1
ALL_WELL = GuestChecks(verify_bad=0, exercise_bad=0, kernel_warnings=(), checksum_matches=True)


def state(
    source: Sequence[int],
    there: Sequence[int],
    *,
    sent: Sequence[int] | None = None,
    named: dict[int, str] | None = None,
    block: str = "pc.ram",
) -> BlockState:
    """A block whose pages hold these numbers."""
    a, b = np.array(source), np.array(there)
    return BlockState(
        Block(block, len(a)),
        np.flatnonzero(a != b),
        a == 0,
        b == 0,
        None if sent is None else np.array(sent, dtype=np.bool_),
        None,
        named or {},
    )


def accept(
    id_: int, bits: Sequence[int], *, cleared: Sequence[int] | None = None, **changes: object
) -> Accept:
    reported = PackedFlags.pack(np.array(bits, dtype=np.bool_))
    done = reported if cleared is None else PackedFlags.pack(np.array(cleared, dtype=np.bool_))
    return replace(Accept(id_, 1, "pc.ram", 0, reported, done), **changes)


def rules(case: JudgeInput, *facts: object) -> set[str]:
    return {finding.rule for finding in judge(case, *facts).findings}


PLAIN = JudgeInput("off", (state([1, 2, 0], [1, 2, 0]),), expect=Expect())


def test_off_all_equal_passes_without_a_record() -> None:
    judgement = judge(PLAIN)
    assert judgement.verdict == "pass"
    assert judgement.reason == "all 3 pages are right: 3 equal"
    assert judgement.pages.explained == {}


def test_off_any_difference_is_wrong() -> None:
    case = replace(PLAIN, blocks=(state([1, 2, 0], [1, 0, 0]),))
    judgement = judge(case)
    assert judgement.verdict == "fail"
    page = judgement.wrong_pages()[0]
    assert (page.page, page.rule, page.sent, page.frame) == (1, "differs-not-skipped", None, None)
    sent = judge(replace(PLAIN, blocks=(state([1, 2, 0], [1, 3, 0], sent=[1, 1, 1]),)))
    assert sent.wrong_pages()[0].rule == "differs-though-sent"


def test_off_must_not_skip() -> None:
    case = replace(PLAIN, blocks=(state([1, 2, 0], [1, 0, 0], sent=[1, 0, 1]),), log=(accept(5, [0, 1, 0]),))
    assert rules(case) == {"answer-in-arm-off", "skipped-by-unacceptable-answer"}
    asked = replace(PLAIN, log=(Request(5, 1, 0, 3),))
    assert rules(asked) == {"request-in-other-arm"}


def test_off_says_nothing_of_the_zeros_it_sent() -> None:
    """Observations are about arm info."""
    assert judge(PLAIN).observed == {}


def test_hint_without_a_record_takes_zeros_for_hints() -> None:
    case = JudgeInput("hint", (state([1, 2, 3, 0], [1, 0, 3, 0]),))
    judgement = judge(case)
    assert judgement.verdict == "pass"
    assert judgement.pages.explained == {"hinted": 1}
    assert judgement.pages.equal == 3
    assert rules(replace(case, blocks=(state([1, 2], [1, 9]),))) == {"differs-not-skipped"}


def test_hint_with_a_record_knows_which_pages_were_hinted() -> None:
    hinted = accept(HINT, [0, 1, 0, 1])
    case = JudgeInput("hint", (state([1, 2, 3, 0], [1, 0, 3, 0], sent=[1, 0, 1, 0]),), log=(hinted,))
    judgement = judge(case)
    assert judgement.verdict == "pass"
    assert judgement.pages.explained == {"hinted": 2}
    assert judgement.pages.skipped == 0
    # A page of zeros that nobody hinted is not explained.
    other = replace(case, blocks=(state([1, 2, 3, 4], [1, 0, 0, 0], sent=[1, 0, 0, 0]),))
    assert judge(other).wrong_pages()[0].page == 2
    assert rules(other) == {"neither-sent-nor-skipped"}
    wrong = replace(case, blocks=(state([1, 2, 3, 0], [1, 7, 3, 0], sent=[1, 0, 1, 0]),))
    assert rules(wrong) == {"skipped-but-not-zero-on-destination"}


def test_upstream_may_hint_what_it_has_sent() -> None:
    hinted = accept(HINT, [0, 1, 0])
    case = JudgeInput("hint", (state([1, 5, 3], [1, 2, 3], sent=[1, 1, 1]),), log=(hinted,))
    judgement = judge(case)
    assert judgement.verdict == "pass"
    assert judgement.pages.explained == {"hinted-after-sent": 1}
    assert rules(replace(case, blocks=(state([1, 5, 4], [1, 2, 3], sent=[1, 1, 1]),))) == {
        "differs-though-sent"
    }


def test_an_answer_has_no_business_in_arm_hint() -> None:
    case = JudgeInput("hint", (state([1, 2], [1, 0], sent=[1, 0]),), log=(accept(5, [0, 1]),))
    assert rules(case) == {"accept-without-request", "skipped-by-unacceptable-answer"}


def info(**changes: object) -> JudgeInput:
    """Page 1 was skipped, rightly."""
    case = JudgeInput(
        "info",
        (state([1, 2, 0], [1, 0, 0], sent=[1, 0, 1]),),
        log=(Request(5, 1, 0, 3), accept(5, [0, 1, 0])),
        unchanged={5: {"pc.ram": np.array([True, True, True])}},
    )
    return replace(case, **changes)


def test_info_passes() -> None:
    judgement = judge(info(), ALL_WELL)
    assert judgement.verdict == "pass"
    assert judgement.reason == "all 3 pages are right: 2 equal, 1 skipped"
    assert judgement.pages.skipped_percent == pytest.approx(100 / 3)
    assert "own account" in judge(info(strict=False, unchanged={})).reason


def test_nothing_skipped_is_no_pass() -> None:
    nothing = info(blocks=(state([1, 2, 0], [1, 2, 0], sent=[1, 1, 1]),))
    assert judge(nothing).verdict == "inconclusive"
    assert judge(replace(nothing, expect=Expect(skipping=False))).verdict == "pass"
    assert judge(replace(nothing, expect=Expect(skipped_percent_min=10))).verdict == "fail"
    assert judge(replace(nothing, arm="hint", log=())).verdict == "inconclusive"
    assert judge(replace(nothing, arm="hint", log=(), hints_taken=0)).verdict == "inconclusive"
    # A QEMU without a record: the state of its device says that there were hints.
    unrecorded = judge(replace(nothing, arm="hint", log=(), hints_taken=12))
    assert (unrecorded.verdict, "12 hints were taken" in unrecorded.reason) == ("pass", True)
    assert judge(replace(nothing, arm="info", log=(), hints_taken=12)).verdict == "inconclusive"
    assert judge(replace(PLAIN, expect=Expect(skipping=True))).verdict == "inconclusive"
    assert judge(JudgeInput("off", ())).verdict == "inconclusive"


def test_a_hint_that_was_sent_later_was_exercised() -> None:
    blocks = (state([1, 2, 0], [1, 2, 0], sent=[1, 1, 1]),)
    case = JudgeInput("hint", blocks, log=(accept(HINT, [0, 1, 0]),), expect=Expect())
    judgement = judge(case)
    assert judge(replace(case, log=(accept(HINT, [0, 1, 0], cleared=[0, 0, 0]),))).verdict == "inconclusive"
    assert judgement.verdict == "pass"
    assert "sent later all the same" in judgement.reason


def test_nothing_skipped_says_how_far_it_came() -> None:
    nothing = info(blocks=(state([1, 2, 0], [1, 2, 0], sent=[1, 1, 1]),))
    refused = {"refused": "postcopy-ram is enabled"}
    for case, words in (
        (nothing, "the answers that were accepted named no page that was still to be sent"),
        (replace(nothing, log=nothing.log[:1]), "no answer was accepted"),
        (replace(nothing, log=()), "no request left"),
        (
            replace(nothing, log=(), statistics=refused),
            "the device asked for nothing, as postcopy-ram is enabled",
        ),
        (replace(nothing, arm="hint", log=()), "arm hint was not exercised"),
    ):
        assert judge(case).reason == f"memory is right, but nothing was skipped: {words}"
        demanding = replace(case, expect=case.expect.model_copy(update={"skipping": True}))
        assert [found.rule for found in judge(demanding).findings] == ["nothing-skipped"]


def test_wrong_memory_comes_before_everything_else() -> None:
    judgement = judge(info(unchanged={5: {"pc.ram": np.zeros(3, np.bool_)}}), replace(ALL_WELL, verify_bad=3))
    assert judgement.verdict == "fail"
    assert judgement.reason.startswith("1 pages of 'pc.ram' were skipped, though they were written")
    assert judgement.reason.endswith("(and 1 more findings)")


def test_expectations() -> None:
    assert rules(info(expect=Expect(skipped_percent_min=33))) == set()
    assert rules(info(expect=Expect(skipped_percent_min=34))) == {"skipped-percent-min"}
    assert rules(info(expect=Expect(skipped_percent_max=33))) == {"skipped-percent-max"}
    assert rules(info(expect=Expect(skipped_percent_max=34))) == set()
    assert rules(info(expect=Expect(sent_over_floor_max=1.1)), SentOverFloor(1.2)) == {"sent-over-floor-max"}
    assert rules(info(expect=Expect(sent_over_floor_max=1.1)), SentOverFloor(1.0)) == set()
    # They are about free page info; another arm is there to be compared with.
    assert rules(replace(PLAIN, expect=Expect(skipped_percent_min=60))) == set()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"verify_bad": 1}, "guest-verify"),
        ({"exercise_bad": 1}, "guest-exercise"),
        ({"kernel_warnings": ("BUG: Bad page state",)}, "guest-kernel-log"),
        ({"checksum_matches": False}, "guest-checksum"),
    ],
)
def test_the_guest_may_object(changes: dict[str, object], rule: str) -> None:
    assert rules(info(), replace(ALL_WELL, **changes)) == {rule}


@pytest.mark.parametrize("missing", ["verify_bad", "exercise_bad", "kernel_warnings"])
def test_a_guest_that_was_not_asked_is_no_pass(missing: str) -> None:
    assert judge(info(), replace(ALL_WELL, **{missing: None})).verdict == "inconclusive"


def test_the_device_must_count_what_it_logs() -> None:
    right = {"skipped": 1, "reported": 1, "requests": 1, "answers": 1}
    assert rules(info(statistics=right)) == set()
    for key in ("skipped", "reported", "requests"):
        assert rules(info(statistics={**right, key: 2})) == {"statistics-disagree"}


def test_ids() -> None:
    twice = info(log=(Request(5, 1, 0, 3), Request(5, 1, 0, 3), accept(5, [0, 1, 0])))
    assert rules(twice) == {"request-id-reused"}
    zero = info(log=(Request(0, 1, 0, 3), *info().log))
    assert rules(zero) == {"request-id-zero"}


def test_what_nobody_looked_into_must_not_be_skipped() -> None:
    case = info(log=(*info().log, accept(5, [0, 1], block="pc.bios")))
    judgement = judge(case)
    assert rules(case) == {"skipped-unseen"}
    assert judgement.findings[0].pages == (1,)
    harmless = info(log=(*info().log, accept(5, [0, 1], cleared=[0, 0], block="pc.bios")))
    assert rules(harmless) == set()


def test_findings_of_one_rule_are_counted() -> None:
    chunks = tuple(accept(5, [0, 1, 1], cleared=[0, 1, 1], generation=9) for _ in range(3))
    finding = next(f for f in judge(info(log=(Request(5, 1, 0, 3), *chunks))).findings if f.kind == "record")
    assert (finding.rule, finding.count) == ("accept-after-sync", 3)


def test_an_old_answer_in_two_chunks_does_not_spoil_the_new_one() -> None:
    """The last clearing decides, for better and for worse."""
    log = (
        Request(5, 1, 0, 3),
        accept(5, [0, 1, 0], generation=2),
        Request(6, 2, 0, 3),
        accept(6, [0, 1, 0], generation=2),
    )
    case = info(log=log, unchanged={6: {"pc.ram": np.ones(3, np.bool_)}})
    judgement = judge(case)
    assert judgement.pages.wrong == 0
    assert judgement.pages.skipped == 1
    assert rules(case) == {"accept-after-sync"}
    turned = (log[2], log[3], replace(log[0], id=7), replace(log[1], id=7, generation=9))
    assert (
        judge(info(log=turned, unchanged=case.unchanged)).wrong_pages()[0].rule
        == "skipped-by-unacceptable-answer"
    )


def test_half_of_the_evidence_is_no_evidence() -> None:
    with pytest.raises(MachineryError, match="does not say which pages"):
        judge(info(blocks=(state([1], [1]),)))
    with pytest.raises(MachineryError, match="does not cover"):
        judge(info(blocks=(replace(state([1, 2], [1, 2], sent=[1, 1]), sent=np.ones(1, np.bool_)),)))


def test_several_blocks_are_summed() -> None:
    blocks = (*info().blocks, state([4, 0], [4, 0], sent=[1, 1], block="pc.bios"))
    judgement = judge(info(blocks=blocks))
    assert (judgement.pages.total, judgement.pages.equal, judgement.pages.skipped) == (5, 4, 1)


def test_wrong_pages_show_some_of_each_rule() -> None:
    """One page in a hundred that breaks another rule must not be lost behind the others."""
    source = list(range(1, 202))
    there = [*([0] * 100), *source[100:200], 9]
    blocks = (state(source, there, sent=[0] * 100 + [1] * 101),)
    listed = judge(info(blocks=blocks, log=())).wrong_pages(limit=10)
    assert len(listed) <= 10
    assert {page.rule for page in listed} == {"differs-though-sent", "neither-sent-nor-skipped"}
    assert (listed[0].page, listed[-1].page) == (0, 200)


def test_a_name_hides_no_other_page_and_no_equal_one() -> None:
    block = state([1, 2, 3, 4], [1, 7, 8, 9], named={0: "steal time", 1: "kvmclock", 3: "kvmclock"})
    judgement = judge(replace(PLAIN, blocks=(block,)))
    assert judgement.pages.explained == {"kvmclock": 2}
    assert (judgement.pages.equal, judgement.pages.wrong) == (1, 1)
    assert judgement.wrong_pages()[0].page == 2


def test_reached_maps_frames_over_a_hole() -> None:
    gib = 2**30
    block = Block("pc.ram", 6, ((0, 0, 3 * PAGE_SIZE), (4 * gib, 3 * PAGE_SIZE, 3 * PAGE_SIZE)))
    above = 4 * gib // PAGE_SIZE
    assert reached(Request(1, 1, 0, above + 3), block).tolist() == [True] * 6
    assert reached(Request(1, 1, 0, above + 1), block).tolist() == [True] * 4 + [False] * 2
    assert reached(Request(1, 1, 2, above - 1), block).tolist() == [False, False, True, True, False, False]
    assert reached(Request(1, 1, 3, 5), block).tolist() == [False] * 6
    assert block.frame(0) == 0
    assert block.frame(4) == above + 1
    assert Block("rom", 1).frame(0) is None
