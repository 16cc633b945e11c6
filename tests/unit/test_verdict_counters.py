# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters that contradict each other, and how often the guest was asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from harness.memory.record import Accept, Block, PackedFlags, Request
from harness.scenario.load import Expect
from harness.verdict.finding import Finding
from harness.verdict.judge import JudgeInput, RequestWitness, judge
from tests.unit.test_verdict_witness import walk_of

#: What is found in the counters alone.
IN_COUNTERS = ("property-disagrees", "dirty-count-disagrees", "invalid-max", "reported-not-memory")


def counter_findings(case: JudgeInput) -> list[Finding]:
    return [finding for finding in judge(case).findings if finding.rule in IN_COUNTERS]


def rules(statistics: dict[str, object] | None, arm: str = "info") -> list[str]:
    case = JudgeInput(arm=arm, blocks=(), statistics=statistics)  # type: ignore[arg-type]
    return [finding.rule for finding in counter_findings(case)]


def test_the_number_of_dirty_pages_is_the_number_of_bits() -> None:
    assert rules({"dirty-pages": 7, "dirty-bits": 7}) == []
    assert rules({"dirty-pages": 7, "dirty-bits": 0}) == ["dirty-count-disagrees"]
    assert rules({"dirty-pages": 7}) == ["dirty-count-disagrees"]
    assert rules({}) == rules(None) == []


def test_a_management_tool_is_told_what_is_recorded() -> None:
    recorded = {"skipped": 7, "refused": "", "dirty-pages": 3, "dirty-bits": 3}

    def found(said: dict[str, object] | None) -> list[str]:
        case = JudgeInput(arm="info", blocks=(), statistics=recorded, totals=recorded, counters=said)
        return [finding.rule for finding in counter_findings(case)]

    assert found(None) == []
    assert found({"skipped": 7, "refused": "", "skip-sent": "off"}) == []
    assert found({"skipped": 6, "refused": ""}) == ["property-disagrees"]
    assert found({"skipped": 7}) == ["property-disagrees"]
    assert found({}) == ["property-disagrees"]


def test_a_free_page_is_memory() -> None:
    assert rules({"bad-pages": 0}) == []
    assert rules({"bad-pages": 3}) == ["reported-not-memory"]
    assert rules({"bad-pages": 3}, arm="hint") == []


def test_of_memory_that_stays_where_it_is_free_frames_may_be_reported() -> None:
    """As many as the outside walk has seen free there at either end."""
    here = Block("shared", 8, ((16 * 4096, 0, 8 * 4096),))
    before, after = np.zeros(24, dtype=np.bool_), np.zeros(24, dtype=np.bool_)
    before[[2, 17, 18]] = after[[18, 19]] = True
    accept = Accept(5, 1, "pc.ram", 0, PackedFlags.pack(before[:16]), PackedFlags.pack(before[:16]))

    def found(bad: int, witnesses: Mapping[int, RequestWitness]) -> list[str]:
        case = JudgeInput(
            arm="info",
            blocks=(),
            log=(accept,),
            statistics={"bad-pages": bad},
            left_where_it_is=(here,),
            witnesses=witnesses,
        )
        return [finding.rule for finding in counter_findings(case)]

    seen = {5: RequestWitness(walk_of(before), walk_of(after))}
    assert found(3, seen) == []
    assert found(4, seen) == ["reported-not-memory"]
    # Nobody looked: no more than there is.
    assert found(8, {}) == []
    assert found(9, {}) == ["reported-not-memory"]


def test_a_right_driver_keeps_to_the_protocol() -> None:
    def found(most: int | None) -> list[str]:
        case = JudgeInput(arm="info", blocks=(), statistics={"invalid": 3}, expect=Expect(invalid_max=most))
        return [finding.rule for finding in counter_findings(case)]

    assert (found(None), found(3), found(0)) == ([], [], ["invalid-max"])


@pytest.mark.parametrize(
    ("least", "most", "rule"), [(2, None, "requests-min"), (None, 0, "requests-max"), (1, 1, None)]
)
def test_how_often_the_guest_was_asked(least: int | None, most: int | None, rule: str | None) -> None:
    expect = Expect(requests_min=least, requests_max=most, skipping=False)
    asked = Request(id=5, generation=1, first_frame=0, frames=64)
    judgement = judge(JudgeInput(arm="info", blocks=(), log=(asked,), expect=expect))
    assert [finding.rule for finding in judgement.findings] == ([rule] if rule else [])
