# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest and its migration go through with a request under way: each case a scenario that ships.

Every run is judged by the oracle; beyond that, each test looks for proof that the
case came about: in the counters, and in the order of events (never in a time).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.report.result import Result
from harness.testing import Freepage, Run

slow = pytest.mark.slow


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """A guest of 256 MiB."""
    return freepage.with_defaults(memory="256MiB")


def passed(run: Run) -> Result:
    """Right, and everything that the script says has happened."""
    assert run.exit_code == 0, str(run)
    assert run.result.verdict == "pass"
    assert not run.result.not_compared
    assert run.result.guest.kernel_warnings == []
    return run.result


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


def test_cancelled_and_retried(freepage: Freepage) -> None:
    run = freepage.run("cancelled-retried")
    result = passed(run)
    assert ends(result) == ["cancelled", "completed"]
    assert "cancel" in result.moves[0].reason
    assert result.pages.skipped > 0
    happened = course(run.folder)
    in_order(happened, "holds request", "cancel", "is cancelled")
    # QEMU is so quick that its event may come before its answer.
    in_order(happened, "cancel", "answered migrate_cancel")


@slow
@pytest.mark.parametrize("at", ["answer", "pass"])
def test_cancelled_elsewhere(freepage: Freepage, freepage_folder: Path, at: str) -> None:
    number = ", number: 2" if at == "pass" else ""
    scenario = freepage_folder / "cancelled.yaml"
    scenario.write_text(
        "name: cancelled-elsewhere\n"
        "workload: {kind: churn, noise: 100MiB}\n"
        "moves: [{ends: cancelled}, {}]\n"
        f"script: [{{at: {at}{number}, do: [{{action: cancel}}]}}]\n",
        encoding="utf-8",
    )
    result = passed(freepage.run(str(scenario)))
    assert ends(result) == ["cancelled", "completed"]
    assert result.pages.skipped > 0


def test_failed_and_retried(freepage: Freepage) -> None:
    result = passed(freepage.run("killed-retried"))
    assert ends(result) == ["failed", "completed"]
    # What the user is told.
    assert "the migration failed" in result.moves[0].reason
    assert result.pages.skipped > 0


def test_there_and_back_and_there_again(freepage: Freepage) -> None:
    result = passed(freepage.run("there-and-back"))
    assert ends(result) == ["completed"] * 3
    assert all(move.verdict == "pass" and move.skipped and move.requests for move in result.moves)


def test_a_stalled_network(freepage: Freepage) -> None:
    """The source's thread blocks in a write, with the bitmap's mutex held; an answer comes; QMP answers."""
    run = freepage.run("stalled")
    result = passed(run)
    assert ends(result) == ["cancelled", "completed"]
    in_order(
        course(run.folder),
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
    assert course(run.folder).index("is cancelled") > course(run.folder).index("stall")


def test_stopped_and_continued(freepage: Freepage) -> None:
    run = freepage.run("stopped-continued")
    result = passed(run)
    assert result.pages.skipped_percent > 30
    in_order(course(run.folder), "holds request", "stop", "cont", "holds answer", "is completed")


def test_an_answer_on_the_destination(freepage: Freepage) -> None:
    result = passed(freepage.run("answer-after-move"))
    first, second = result.moves
    assert (first.requests, first.skipped) == (1, 0)
    # The destination's device was given an answer to a request that it never made.
    assert result.protocol.stale > 0
    assert second.skipped > 0


def test_a_guest_that_never_answers(freepage: Freepage) -> None:
    result = passed(freepage.run("never-answered"))
    assert result.protocol.requests > 0
    assert result.protocol.responses == 0
    assert result.pages.skipped == 0


def test_the_driver_is_unbound_and_bound(freepage: Freepage) -> None:
    run = freepage.run("unbound")
    result = passed(run)
    in_order(course(run.folder), "at before-walk", "driver-unbind", "driver-bind")
    assert result.moves[-1].skipped > 0


def test_memory_goes_offline_and_online(freepage: Freepage) -> None:
    run = freepage.run("offlined")
    result = passed(run)
    in_order(course(run.folder), "at mid-walk", "memory-offline", "holds answer", "memory-online")
    assert result.pages.skipped > 0


def test_the_balloon_is_inflated(freepage: Freepage) -> None:
    run = freepage.run("inflated")
    result = passed(run)
    assert result.pages.skipped > 0
    in_order(course(run.folder), "holds request", "balloon", "is completed")


@pytest.mark.parametrize(
    "how", ["reset", pytest.param("reboot", marks=slow), pytest.param("kexec", marks=slow)]
)
def test_the_guest_starts_anew(freepage: Freepage, how: str) -> None:
    run = freepage.run(how)
    result = passed(run)
    in_order(course(run.folder), "at before-walk", how, "bandwidth", "is completed")
    said = [event["kind"] for event in _all(run.folder)]
    # It was ready twice: it has booted in the middle of the migration.
    assert said.count("guest-ready") >= 2
    assert result.moves[-1].skipped > 0


def _all(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]


def test_a_script_that_is_not_reached_is_no_pass(freepage: Freepage, freepage_folder: Path) -> None:
    scenario = freepage_folder / "never.yaml"
    scenario.write_text(
        "name: never\nscript: [{at: pass, number: 1000, do: [{action: qmp-answers}]}]\n", encoding="utf-8"
    )
    run = freepage.run(str(scenario))
    assert run.exit_code == 4, str(run)
    assert run.result.reason == "memory is right, but the script came to no pass 1000"


@slow
def test_what_a_migration_is_expected_to_come_to(freepage: Freepage, freepage_folder: Path) -> None:
    scenario = freepage_folder / "expected.yaml"
    scenario.write_text("name: expected\nmoves: [{ends: cancelled}, {}]\n", encoding="utf-8")
    run = freepage.run(str(scenario))
    assert run.exit_code == 1, str(run)
    assert "the migration ended completed, expected cancelled" in run.result.findings[0].text
