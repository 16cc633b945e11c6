# SPDX-License-Identifier: GPL-2.0-or-later
"""Expectations about the end of a migration, and what a command ends with."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest

from harness.errors import InputError
from harness.run.carry_out import exit_status
from harness.scenario.expectations import Expect
from harness.scenario.load import load_scenario
from harness.units import Percent
from harness.verdict.context import Analyses, Context
from harness.verdict.facts import GuestChecks, StayedPut
from harness.verdict.judge import JudgeInput, judge
from harness.verdict.outcome import MigrationOutcome, QemuAccount
from harness.verdict.rules.doubts import too_few_rounds
from harness.verdict.rules.expected_outcome import Convergence, FreeMemory, MigrationNumbers

NUMBERS = MigrationNumbers(passes=5, syncs=6, total_ms=1000, downtime_ms=100)
OUTCOME = MigrationOutcome(
    QemuAccount("source", ("active", "completed"), ((0.0, 1.0),)),
    QemuAccount("destination", ("completed",), ((2.0, None),), last_words=("nbd: Disconnect client",)),
)
FREE = FreeMemory(before=1000, after=900)


def rules(**expect: object) -> list[str]:
    case = JudgeInput(arm="off", blocks=(), expect=Expect.model_validate(expect))
    return [finding.rule for finding in judge(case, NUMBERS, OUTCOME, FREE).findings]


@pytest.mark.parametrize(
    ("key", "kept", "broken"),
    [
        ("rounds_max", 5, 4),
        ("syncs_max", 6, 5),
        ("total_ms_max", 1000, 999),
        ("downtime_ms_max", 100, 99),
        ("status", "completed", "cancelled"),
        ("runs_on", "destination", "source"),
        ("guest_free_min", Percent(Decimal(90)), Percent(Decimal(91))),
    ],
)
def test_each_expectation_is_met_up_to_its_limit(key: str, kept: object, broken: object) -> None:
    assert rules(**{key: kept}) == []
    assert rules(**{key: broken}) == [key.replace("_", "-")]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["active", "completed"], []),
        (["completed"], []),
        (["wait-unplug", "active"], ["statuses"]),
        (["completed", "active"], ["statuses"]),
    ],
)
def test_statuses_come_in_their_order(wanted: list[str], found: list[str]) -> None:
    assert rules(statuses=wanted) == found


def test_a_migration_that_was_not_to_complete_needs_no_memory() -> None:
    case = JudgeInput(arm="info", blocks=(), expect=Expect())
    well = GuestChecks(verify_bad=0, exercise_bad=0, kernel_warnings=(), checksum_matches=True)
    assert judge(case, well).verdict == "inconclusive"
    said = judge(case, well, StayedPut("failed"))
    assert (said.verdict, "the migration failed, as it was to" in said.reason) == ("pass", True)
    # Its guest has to be whole, all the same.
    assert judge(case, GuestChecks(), StayedPut("failed")).verdict == "inconclusive"
    ill = GuestChecks(verify_bad=1, exercise_bad=0, kernel_warnings=(), checksum_matches=True)
    assert judge(case, ill, StayedPut("failed")).verdict == "fail"


@pytest.mark.parametrize(("least", "enough"), [(5, True), (6, False)])
def test_a_migration_of_too_few_rounds_shows_nothing(least: int, enough: bool) -> None:
    case = JudgeInput(arm="off", blocks=(), expect=Expect(rounds_min=least))
    said = too_few_rounds(case, Context(Analyses(case), (NUMBERS,)))
    assert (said is None) == enough


@pytest.mark.parametrize("expected", [True, None])
@pytest.mark.parametrize("reached", [True, False])
def test_convergence(expected: bool | None, reached: bool) -> None:
    case = JudgeInput(arm="off", blocks=(), expect=Expect.model_validate({"converged": expected}))
    convergence = Convergence(reached, "" if reached else "the migration: not within 20 s")
    found = [finding.rule for finding in judge(case, convergence).findings]
    assert found == (["converged"] if expected and not reached else [])


def result(verdict: str, expected: str, *rules: str, rule: str | None = None) -> SimpleNamespace:
    from harness.report.result import Result

    findings = [SimpleNamespace(rule=name) for name in rules]
    made = SimpleNamespace(verdict=verdict, expected=expected, expected_rule=rule, findings=findings)
    made.as_expected = Result.as_expected.fget(made)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (result("pass", "pass"), 0),
        (result("fail", "pass", "differs-though-sent"), 1),
        (result("inconclusive", "pass"), 4),
        # A scenario that is written to show a fault.
        (result("fail", "fail", "two-run"), 0),
        (result("fail", "fail", "two-run", rule="two-run"), 0),
        (result("fail", "fail", "none-runs", rule="two-run"), 1),
        (result("pass", "fail"), 1),
        (result("inconclusive", "fail"), 4),
    ],
)
def test_the_exit_status_is_of_what_the_scenario_shows(found: SimpleNamespace, status: int) -> None:
    assert exit_status(found) == status  # type: ignore[arg-type]


def test_a_rule_is_expected_of_a_failure_alone() -> None:
    assert load_scenario("idle", ["expect.verdict=fail", "expect.rule=stuck"]).expect.rule == "stuck"
    with pytest.raises(InputError, match="expected only with verdict: fail"):
        load_scenario("idle", ["expect.rule=stuck"])


def test_what_a_qemu_writes_to_its_log() -> None:
    assert rules(qemu_says=["Disconnect", "nbd:"]) == []
    assert rules(qemu_says=["Disconnect", "Connect client"]) == ["qemu-says"]
    assert rules(qemu_says_not=["Connect client"]) == []
    assert rules(qemu_says_not=["Connect client", "Disconnect"]) == ["qemu-says-not"]
