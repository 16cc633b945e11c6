# SPDX-License-Identifier: GPL-2.0-or-later
"""What the migration's stream says, judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.memory.record import Block
from harness.report.wire import WireReport
from harness.verdict.judge import BlockState, JudgeInput, judge_memory
from harness.verdict.wire import PageList, WireBlock, WireFacts

SOUND = WireBlock("pc.ram", 4, full=3, zero=2, again=1)
FIVE = PageList(5, (1, 2))


def rules(block: WireBlock, arm: str = "off") -> dict[str, int]:
    none = np.zeros(4, dtype=np.bool_)
    state = BlockState(Block("pc.ram", 4, ()), np.empty(0, dtype=np.int64), none, none)
    case = JudgeInput(arm, (state,))  # type: ignore[arg-type]
    judgement = judge_memory(case, WireFacts(1000, 3, (block,))).judgement
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
    ],
)
def test_each_rule(field: str, rule: str) -> None:
    assert rules(replace(SOUND, **{field: FIVE})) == {rule: 5}  # type: ignore[arg-type]


def test_pages_are_left_out_on_purpose() -> None:
    assert "wire-never-sent" not in rules(replace(SOUND, never=FIVE), "hint")


def test_both_kinds_of_disagreement_are_one_finding() -> None:
    both = replace(SOUND, record_only=FIVE, wire_only=PageList(2, (7, 8)))
    assert rules(both) == {"wire-disagrees": 7}


def test_the_report_has_all_of_it() -> None:
    report = WireReport.of(WireFacts(1000, 3, (replace(SOUND, stale=FIVE),)))
    (block,) = report.blocks
    assert (block.full, block.zero, block.again) == (3, 2, 1)
    assert (block.stale.count, block.stale.first) == (5, [1, 2])
