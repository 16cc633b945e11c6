# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs: two hosts, a guest that moves, and the verdict over its memory."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result
from harness.scenario.load import load_scenario
from harness.testing import Freepage, Run


def judged(run: Run, verdict: str = "pass") -> Result:
    """The result, which has to be this verdict."""
    status = {"pass": 0, "fail": 1, "inconclusive": 4}[verdict]
    assert run.exit_code == status, str(run)
    result = run.result
    assert result.verdict == verdict, str(run)
    pages = result.pages
    assert pages.total == pages.equal + pages.skipped + sum(pages.explained.values()) + pages.wrong
    assert not result.not_compared
    return result


@pytest.mark.parametrize(
    ("scenario", "arm", "machine", "least_skipped"),
    [
        ("idle", "off", "pc", 0),
        ("idle", "info", "q35", 50),
        ("freed", "info", "pc", 60),
        ("fragmented", "info", "pc", 30),
        ("churn", "info", "pc", 10),
    ],
    ids=lambda value: str(value),
)
def test_memory_is_right(
    freepage: Freepage, scenario: str, arm: str, machine: str, least_skipped: int
) -> None:
    result = judged(freepage.run(scenario, arm=arm, machine=machine))
    assert result.arm == arm
    assert result.pages.skipped_percent >= least_skipped
    assert (result.pages.skipped > 0) == (arm == "info")
    # Used, not only negotiated.
    assert (result.protocol.requests > 0) == (arm == "info")
    assert result.protocol.invalid == 0
    # The second witness: every reported page was free, and on a quiet guest both name the same.
    heard = result.witnesses
    assert heard is not None
    assert scenario == "churn" or heard.answered == heard.judged
    assert heard.owned == 0
    assert (heard.agreement.get("both", 0) > 0) == (arm == "info" and scenario != "churn")
    assert result.bytes.floor_by == "walk"
    guest = result.guest
    assert guest.checksum_matches
    assert (guest.verify_bad, guest.exercise_bad, guest.kernel_warnings) == (0, 0, [])
    assert guest.exercise_pages


def test_the_peer_arm_runs_and_its_memory_is_right(freepage: Freepage) -> None:
    run = freepage.run("freed", arm="hint")
    # Under emulation upstream's driver may be too slow for its hints to save anything.
    result = judged(run, "pass" if run.exit_code == 0 else "inconclusive")
    assert result.pages.wrong == 0
    assert result.pages.skipped == 0
    assert result.guest.checksum_matches


def test_without_strict_nothing_is_held(freepage: Freepage) -> None:
    result = judged(freepage.run("freed", strict=False))
    assert result.time.held_ms == 0
    assert not result.strict
    assert result.pages.skipped_percent >= 60


def test_strict_holds_the_guest_at_each_request(freepage: Freepage) -> None:
    run = freepage.run("freed")
    result = judged(run)
    assert result.time.held_ms > 0
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    # QEMU's own events: beside them are what was noted of our commands.
    kinds = [event["kind"] for event in events if event["source"] == "source.qmp" and event["kind"].isupper()]
    held = kinds.index("FREE_PAGE_INFO_HOLD")
    assert "STOP" in kinds[:held]
    assert kinds[held + 1] == "RESUME"


def test_the_run_folder_tells_everything(freepage: Freepage) -> None:
    run = freepage.run("idle", arm="off")
    judged(run)
    out = run.folder
    assert not (out / INCOMPLETE_MARKER).exists()
    assert Result.from_json((out / "result.json").read_text()) == run.result
    assert load_scenario(str(out / "scenario.yaml")).seed == run.result.seed
    assert "Linux version" in (out / "console.log").read_text()
    for side in ("source", "destination"):
        assert "<domain" in (out / f"{side}.xml").read_text()
        assert "pc.ram" in (out / f"{side}.command").read_text()
    assert shlex.split(run.result.replay)[:2] == ["freepage", "run"]
    for side in ("source_qemu", "destination_qemu"):
        assert len(run.result.versions[side]["sha256"]) == 64
    assert '"execute"' in (out / "qmp.jsonl").read_text()


def test_the_same_run_again_from_its_folder(freepage: Freepage) -> None:
    first = freepage.run("churn", seed=7)
    again = freepage.run(first.folder / "scenario.yaml")
    assert judged(first).seed == judged(again).seed == 7


def test_multifd(freepage: Freepage) -> None:
    result = judged(freepage.run("freed", set={"migration.multifd": 2}))
    assert result.pages.skipped_percent >= 60


def test_two_runs_at_once(freepage: Freepage) -> None:
    both = [freepage.start("idle", arm="off"), freepage.start("freed")]
    for ending in [running.end() for running in both]:
        judged(ending.run())


def test_a_shell_runs_commands_from_stdin(freepage: Freepage) -> None:
    words = "uname -s; cat /proc/cmdline >&2; exit 7\n"
    ending = freepage.start("idle", command="shell", arm="off", stdin=words).end()
    assert ending.stdout == "Linux\n", str(ending)
    assert "freepage.driver=info" in ending.stderr
    assert ending.exit_code == 7


def test_an_existing_folder_is_left_alone(freepage: Freepage, tmp_path: Path) -> None:
    kept = tmp_path / "out"
    kept.mkdir()
    ending = freepage.start("idle", "--out", str(kept)).end()
    assert ending.exit_code == 2
    assert "exists already" in ending.stderr
    assert not list(kept.iterdir())
