# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the verdict as things to plug in: each kind is defined here, seen in a verdict, taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.memory.image import Flags
from harness.memory.record import Block
from harness.verdict import registry, table
from harness.verdict.block import BlockView
from harness.verdict.context import Analyses, Context
from harness.verdict.facts import CourseOfRun, GuestChecks
from harness.verdict.finding import Finding, Observation
from harness.verdict.judge import BlockState, JudgeInput, judge, judge_memory
from harness.verdict.pages import page_counts

ORACLE = Path(__file__).parents[2] / "docs" / "oracle.md"
ALL_WELL = GuestChecks(verify_bad=0, exercise_bad=0, kernel_warnings=(), checksum_matches=True)


def case(differing: tuple[int, ...] = ()) -> JudgeInput:
    none = np.zeros(4, dtype=np.bool_)
    state = BlockState(Block("pc.ram", 4, ()), np.array(differing, dtype=np.int64), none, none)
    return JudgeInput("off", (state,))


Unregister = Callable[[Callable[..., object]], None]


@pytest.fixture
def plugged() -> Iterator[Unregister]:
    """Call it with what a test has registered: it is taken away afterwards."""
    checks: list[Callable[..., object]] = []
    yield checks.append
    for check in checks:
        registry.unregister(check)


@dataclass(frozen=True)
class Temperature:
    """A fact of which nothing in the package knows."""

    degrees: float


def test_a_rule_of_somebody_elses_is_asked_and_taken_away(plugged: Unregister) -> None:
    @registry.rule("guest", {"too-hot": "the host was too hot"}, needs=(Temperature,))
    def too_hot(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
        degrees = context.fact(Temperature).degrees
        yield Observation("degrees", round(degrees))
        if degrees > 90:
            yield Finding("too-hot", "guest", f"the host had {degrees:g} degrees")

    plugged(too_hot)
    memory = judge_memory(case())
    assert (memory.verdict, memory.judgement.observed) == ("pass", {})
    assert memory.complete(Temperature(50)).verdict == "pass"
    hot = memory.complete(Temperature(95), replace(ALL_WELL, verify_bad=1))
    # In the order of the stages, the shipped ones first.
    assert [finding.rule for finding in hot.findings] == ["guest-verify", "too-hot"]
    assert (hot.verdict, hot.observed) == ("fail", {"degrees": 95})
    assert "too-hot" in {row.name for row in registry.rows()}
    registry.unregister(too_hot)
    assert memory.complete(Temperature(95)).verdict == "pass"
    assert "too-hot" not in {row.name for row in registry.rows()}


def test_a_rule_that_pages_break_comes_before_another_one(plugged: Unregister) -> None:
    @registry.page_rule("odd-page", "are odd, and differ", before="differs-not-skipped")
    def odd(view: BlockView) -> Flags:
        return np.arange(view.state.block.pages) % 2 == 1

    plugged(odd)
    judgement = judge(case(differing=(0, 1, 3)))
    assert [(page.page, page.rule) for page in judgement.wrong_pages()] == [
        (0, "differs-not-skipped"),
        (1, "odd-page"),
        (3, "odd-page"),
    ]
    assert table.rule_words("odd-page") == "are odd, and differ"


def test_a_rule_about_each_block(plugged: Unregister) -> None:
    @registry.block_rule("record", {"small-block": "a block is small"})
    def small(view: BlockView) -> Iterator[Finding | Observation]:
        yield Observation("blocks", 1)
        if view.state.block.pages < 10:
            yield Finding("small-block", "record", "a block is small", block=view.state.block.name)

    plugged(small)
    judgement = judge(case())
    assert [(finding.rule, finding.block) for finding in judgement.findings] == [("small-block", "pc.ram")]
    assert judgement.observed == {"blocks": 1}


def test_a_doubt_makes_a_run_inconclusive_that_nothing_is_wrong_with(plugged: Unregister) -> None:
    @registry.doubt(needs=(Temperature,))
    def cold(_: JudgeInput, context: Context) -> str | None:
        return "nothing happens in the cold" if context.fact(Temperature).degrees < 0 else None

    plugged(cold)
    memory = judge_memory(case())
    assert memory.complete(Temperature(20)).verdict == "pass"
    cold_one = memory.complete(Temperature(-1))
    assert (cold_one.verdict, cold_one.reason) == ("inconclusive", "nothing happens in the cold")
    assert memory.complete(Temperature(-1), replace(ALL_WELL, verify_bad=1)).verdict == "fail"


def test_what_was_judged_is_not_judged_again(plugged: Unregister) -> None:
    """Neither a rule nor an analysis is asked a second time when more becomes known."""
    asked: list[str] = []

    def counting(_: JudgeInput, analyses: Analyses) -> int:
        asked.append("analysis")
        return analyses.of(page_counts).total

    @registry.rule("memory", {})
    def first(_: JudgeInput, context: Context) -> Iterator[Finding]:
        asked.append(f"first {context.of(counting)}")
        yield from ()

    @registry.rule("memory", {}, needs=(GuestChecks,))
    def later(_: JudgeInput, context: Context) -> Iterator[Finding]:
        asked.append(f"later {context.of(counting)}")
        yield from ()

    plugged(first)
    plugged(later)
    judge_memory(case()).complete(ALL_WELL)
    assert asked == ["analysis", "first 4", "later 4"]


def test_the_memory_and_then_the_rest_is_the_same_as_everything_at_once() -> None:
    facts = (replace(ALL_WELL, verify_bad=1), CourseOfRun((Finding("qmp-frozen", "expectation", "hangs"),)))
    whole, completed = judge(case((2,)), *facts), judge_memory(case((2,))).complete(*facts)
    assert whole.findings == completed.findings
    assert [finding.rule for finding in whole.findings] == [
        "differs-not-skipped",
        "guest-verify",
        "qmp-frozen",
    ]
    assert (whole.verdict, whole.reason) == (completed.verdict, completed.reason)


def test_a_name_that_is_not_registered_is_a_fault_of_the_rule(plugged: Unregister) -> None:
    @registry.rule("memory", {"right-name": "words"})
    def misnamed(_: JudgeInput, __: Context) -> Iterator[Finding]:
        yield Finding("other-name", "memory", "words")

    plugged(misnamed)
    with pytest.raises(MachineryError, match="other-name"):
        judge(case())


def test_what_makes_no_rule() -> None:
    with pytest.raises(ValueError, match="kind"):
        registry.rule("taste", {})
    with pytest.raises(MachineryError, match="two facts"):
        judge(case(), ALL_WELL, ALL_WELL)
    with pytest.raises(MachineryError, match="GuestChecks"):
        Context(Analyses(case())).fact(GuestChecks)


def test_the_list_of_rules_in_the_documentation_is_the_registry() -> None:
    """Refresh it with: python -m harness.verdict.table docs/oracle.md."""
    text = ORACLE.read_text("utf-8")
    assert text.count(table.TABLE_BEGIN) == text.count(table.TABLE_END) == 1
    shown = text.partition(table.TABLE_BEGIN)[2].partition(table.TABLE_END)[0]
    listed = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in shown.splitlines()]
    rows = [(f"`{row.name}`", row.kind, row.words) for row in registry.rows()]
    assert [row for row in listed if row[0].startswith("`")] == rows
    assert table.inserted(text) == text
