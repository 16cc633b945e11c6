# SPDX-License-Identifier: GPL-2.0-or-later
"""What the migration's stream says, judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.memory.record import Block
from harness.report.wire import WireReport
from harness.verdict.judge import BlockState, JudgeInput, judge_memory
from harness.verdict.wire import PageList, PagesCounted, WireBlock, WireBytes, WireFacts, WireRound

SOUND = WireBlock("pc.ram", 4, full=3, zero=2, again=1)
FIVE = PageList(5, (1, 2))


def rules(block: WireBlock, arm: str = "off") -> dict[str, int]:
    none = np.zeros(4, dtype=np.bool_)
    state = BlockState(Block("pc.ram", 4, ()), np.empty(0, dtype=np.int64), none, none)
    case = JudgeInput(arm, (state,))  # type: ignore[arg-type]
    judgement = judge_memory(case, WireFacts(WireBytes(1000), 3, (block,))).judgement
    return {found.rule: found.count for found in judgement.findings if found.rule.startswith("wire-")}


def test_a_sound_stream() -> None:
    assert rules(SOUND) == {}


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("not_loaded", "wire-not-loaded"),
        ("stale", "wire-stale"),
        ("never", "wire-never-sent"),
        ("record_only", "wire-disagrees"),
        ("wire_only", "wire-disagrees"),
        ("unordered", "wire-unordered"),
    ],
)
def test_each_rule(field: str, rule: str) -> None:
    assert rules(replace(SOUND, **{field: FIVE})) == {rule: 5}  # type: ignore[arg-type]


def test_pages_are_left_out_on_purpose() -> None:
    assert "wire-never-sent" not in rules(replace(SOUND, never=FIVE), "hint")


def test_both_kinds_of_disagreement_are_one_finding() -> None:
    both = replace(SOUND, record_only=FIVE, wire_only=PageList(2, (7, 8)))
    assert rules(both) == {"wire-disagrees": 7}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (PagesCounted(6, 4), []),
        (PagesCounted(6, 4, bytes=1000), []),
        (PagesCounted(6, 4, bytes=991), ["QEMU counts 991 bytes, and its stream has 1000"]),
        (PagesCounted(7, 4), ["QEMU counts 7 whole pages, and its stream has 6"]),
        (PagesCounted(6, 0), ["QEMU counts 0 pages of zeros, and its stream has 4"]),
    ],
)
def test_what_qemu_counts(said: PagesCounted, found: list[str]) -> None:
    blocks = (SOUND, replace(SOUND, name="pc.bios"))
    facts = WireFacts(WireBytes(1000), 3, blocks)
    judgement = judge_memory(JudgeInput("off", ()), facts, said).judgement
    assert [one.text for one in judgement.findings if one.rule == "counters-disagree"] == found
    unread = replace(facts, unread="it is encrypted")
    assert not judge_memory(JudgeInput("off", ()), unread, said).judgement.findings


def test_the_report_has_all_of_it() -> None:
    facts = WireFacts(WireBytes(1000, 600, 50, 300), 3, (replace(SOUND, stale=FIVE),), (WireRound(3, 2, 1),))
    report = WireReport.of(facts)
    assert report.bytes.rest == 50
    assert [(one.full, one.zero, one.delta) for one in report.rounds] == [(3, 2, 1)]
    (block,) = report.blocks
    assert (block.full, block.zero, block.again) == (3, 2, 1)
    assert (block.stale.count, block.stale.first) == (5, [1, 2])


def test_a_stream_that_is_not_read_is_bytes_and_a_reason() -> None:
    report = WireReport.of(WireFacts(WireBytes(1000), 0, unread="it is encrypted"))
    assert (report.bytes.total, report.bytes.rest, report.unread, report.blocks) == (
        1000,
        1000,
        "it is encrypted",
        [],
    )


def hinted(*, sent: bool, zero: bool) -> set[str]:
    """Arm hint, a QEMU without a record: one page that differs, of which a tap has heard."""
    yes, no = np.ones(1, np.bool_), np.zeros(1, np.bool_)
    state = BlockState(
        Block("pc.ram", 1, ()),
        np.zeros(1, np.int64),
        no,
        yes if zero else no,
        sent=yes if sent else no,
        recorded=False,
    )
    return {found.rule for found in judge_memory(JudgeInput("hint", (state,))).judgement.findings}


def test_with_a_tap_a_page_that_came_was_left_out_by_no_hint() -> None:
    assert hinted(sent=False, zero=True) == set()
    assert hinted(sent=True, zero=True) == {"differs-though-sent"}
    assert hinted(sent=True, zero=False) == {"differs-though-sent"}
    assert hinted(sent=False, zero=False) == {"neither-sent-nor-skipped"}


def test_without_a_record_nobody_knows_what_a_hint_left_out() -> None:
    """Pages of zeros that never came and are equal: hinted, or lost from the bitmap."""
    yes, no = np.ones(1, np.bool_), np.zeros(1, np.bool_)
    block = Block("pc.ram", 1, ())
    for arm, recorded, rule in (
        ("hint", False, False),
        ("hint", True, True),
        ("off", False, True),
    ):
        state = BlockState(block, np.empty(0, np.int64), yes, yes, sent=no, recorded=recorded)
        found = judge_memory(JudgeInput(arm, (state,))).judgement.findings  # type: ignore[arg-type]
        assert ("neither-sent-nor-skipped" in {one.rule for one in found}) == rule
