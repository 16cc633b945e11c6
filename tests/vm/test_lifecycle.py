# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest and its migration go through with a request under way: each case a scenario that ships.

Every run is judged by the oracle; beyond that, each test looks for proof that the
case came about: in the counters, and in the order of events (never in a time).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.report.result import Result
from tests.vm.conftest import Ended

Run = Callable[..., Ended]
slow = pytest.mark.slow

MEMORY = ("--memory", "256MiB")


def passed(ended: Ended) -> Result:
    """Right, and everything that the script says has happened."""
    assert ended.status == 0, str(ended)
    assert ended.result.verdict == "pass"
    assert not ended.result.not_compared
    assert ended.result.guest.kernel_warnings == []
    return ended.result


def ends(result: Result) -> list[str]:
    """How the migrations ended."""
    return [move.ended for move in result.moves]


def course(out: Path) -> list[str]:
    """What happened, in order: moments, actions, answers, holds, QEMU's statuses."""
    found = []
    for line in (out / "events.jsonl").read_text("utf-8").splitlines():
        event = json.loads(line)
        kind, data = event["kind"], event["data"]
        if kind == "action":
            found.append(str(data["action"]))
        elif kind == "script":
            found.append(f"at {data['at']}")
        elif kind == "qmp-answered":
            found.append(f"answered {data['command']}")
        elif kind == "MIGRATION" and event["source"] == "source.qmp":
            found.append(f"is {data['data']['status']}")
        elif kind == "FREE_PAGE_INFO_HOLD":
            found.append(f"holds {data['data']['point']}")
    return found


def in_order(found: list[str], *wanted: str) -> None:
    """Each of these happened, one after the other."""
    rest = iter(found)
    for word in wanted:
        assert any(word == other for other in rest), (word, found)


def test_cancelled_and_retried(run: Run) -> None:
    ended = run("cancelled-retried", *MEMORY)
    result = passed(ended)
    assert ends(result) == ["cancelled", "completed"]
    assert "cancel" in result.moves[0].reason
    assert result.pages.skipped > 0
    happened = course(ended.out)
    in_order(happened, "holds request", "cancel", "is cancelled")
    # QEMU is so quick that its event may come before its answer.
    in_order(happened, "cancel", "answered migrate_cancel")


@slow
@pytest.mark.parametrize("at", ["answer", "pass", "pre-switchover"])
def test_cancelled_elsewhere(run: Run, folder: Path, at: str) -> None:
    number = ", number: 2" if at == "pass" else ""
    scenario = folder / "cancelled.yaml"
    scenario.write_text(
        "name: cancelled-elsewhere\n"
        "workload: {kind: churn, noise: 100MiB}\n"
        "moves: [{ends: cancelled}, {}]\n"
        f"script: [{{at: {at}{number}, do: [{{action: cancel}}]}}]\n",
        encoding="utf-8",
    )
    result = passed(run(str(scenario), *MEMORY))
    assert ends(result) == ["cancelled", "completed"]
    assert result.pages.skipped > 0


def test_failed_and_retried(run: Run) -> None:
    result = passed(run("killed-retried", *MEMORY))
    assert ends(result) == ["failed", "completed"]
    # What the user is told.
    assert "the migration failed" in result.moves[0].reason
    assert result.pages.skipped > 0


def test_there_and_back_and_there_again(run: Run) -> None:
    result = passed(run("there-and-back", *MEMORY))
    assert ends(result) == ["completed"] * 3
    assert all(move.verdict == "pass" and move.skipped and move.requests for move in result.moves)


def test_a_stalled_network(run: Run) -> None:
    """The source's thread blocks in a write, with the bitmap's mutex held; an answer comes; QMP answers."""
    ended = run("stalled", *MEMORY)
    result = passed(ended)
    assert ends(result) == ["cancelled", "completed"]
    in_order(
        course(ended.out),
        "at before-walk",
        "stall",
        "answered query-status",
        "answered query-migrate",
        "module-unhold",
        "holds answer",
        "answered query-status",
        "answered query-migrate",
        "answered migrate_cancel",
        "unstall",
    )
    # Nobody waited for the network: it came back after all of that.
    assert course(ended.out).index("is cancelled") > course(ended.out).index("stall")


def test_stopped_and_continued(run: Run) -> None:
    ended = run("stopped-continued", *MEMORY)
    result = passed(ended)
    assert result.pages.skipped_percent > 30
    in_order(course(ended.out), "holds request", "stop", "cont", "holds answer", "is completed")


def test_an_answer_on_the_destination(run: Run) -> None:
    result = passed(run("answer-after-move", *MEMORY))
    first, second = result.moves
    assert (first.requests, first.skipped) == (1, 0)
    # The destination's device was given an answer to a request that it never made.
    assert result.protocol.stale > 0
    assert second.skipped > 0


def test_a_guest_that_never_answers(run: Run) -> None:
    result = passed(run("never-answered", *MEMORY))
    assert result.protocol.requests > 0
    assert result.protocol.responses == 0
    assert result.pages.skipped == 0


def test_the_driver_is_unbound_and_bound(run: Run) -> None:
    ended = run("unbound", *MEMORY)
    result = passed(ended)
    in_order(course(ended.out), "at before-walk", "driver-unbind", "driver-bind")
    assert result.moves[-1].skipped > 0


def test_memory_goes_offline_and_online(run: Run) -> None:
    ended = run("offlined", *MEMORY)
    result = passed(ended)
    in_order(course(ended.out), "at mid-walk", "memory-offline", "holds answer", "memory-online")
    assert result.pages.skipped > 0


def test_the_balloon_is_inflated(run: Run) -> None:
    ended = run("inflated", *MEMORY)
    result = passed(ended)
    assert result.pages.skipped > 0
    in_order(course(ended.out), "holds request", "balloon", "is completed")


@pytest.mark.parametrize(
    "how", ["reset", pytest.param("reboot", marks=slow), pytest.param("kexec", marks=slow)]
)
def test_the_guest_starts_anew(run: Run, how: str) -> None:
    ended = run(how, *MEMORY)
    result = passed(ended)
    in_order(course(ended.out), "at before-walk", how, "bandwidth", "is completed")
    said = [event["kind"] for event in _all(ended.out)]
    # It was ready twice: it has booted in the middle of the migration.
    assert said.count("guest-ready") >= 2
    assert result.moves[-1].skipped > 0


def _all(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]


def test_a_script_that_is_not_reached_is_no_pass(run: Run, folder: Path) -> None:
    scenario = folder / "never.yaml"
    scenario.write_text(
        "name: never\nscript: [{at: pass, number: 1000, do: [{action: qmp-answers}]}]\n", encoding="utf-8"
    )
    ended = run(str(scenario), *MEMORY)
    assert ended.status == 4, str(ended)
    assert ended.result.reason == "memory is right, but the script came to no pass 1000"


@slow
def test_what_a_migration_is_expected_to_come_to(run: Run, folder: Path) -> None:
    scenario = folder / "expected.yaml"
    scenario.write_text("name: expected\nmoves: [{ends: cancelled}, {}]\n", encoding="utf-8")
    ended = run(str(scenario), *MEMORY)
    assert ended.status == 1, str(ended)
    assert "the migration ended completed, expected cancelled" in ended.result.findings[0].text
