# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ended, told by QEMU's own words: at the moments at which it is easily told wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Freepage, Run, WrongInput

SMALL = "arm: off\nguest: {memory: 192MiB}\n"


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """With the memory that the scenario says."""
    return freepage.with_defaults(memory=None)


def disturbed(freepage: Freepage, folder: Path, at: str, action: str, ends: str, more: str = "") -> Run:
    """A run whose script does one thing at one moment of its first migration."""
    scenario = folder / "disturbed.yaml"
    scenario.write_text(
        f"name: disturbed\n{SMALL}{more}moves: [{{ends: {ends}}}, {{}}]\n"
        f"script: [{{at: {at}, do: [{{action: {action}}}]}}]\n",
        encoding="utf-8",
    )
    return freepage.run(str(scenario))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [("panic-on-arrival", "its kernel"), ("silent-on-arrival", "silent"), ("reset-on-arrival", "reset")],
)
def test_a_guest_that_dies_when_it_has_moved(freepage: Freepage, fault: str, words: str) -> None:
    """Its deadline is 30 s: it is not what ends this."""
    run = freepage.run("idle", arm="off", memory="192MiB", fault=fault)
    assert run.verdict == "fail"
    assert found(run) == {"guest-died"}
    (finding,) = run.result.findings
    assert words in finding.text
    assert "not within" not in finding.text
    assert "the same guest goes on (without-migration/)" in finding.text
    assert (run.folder / "without-migration" / "console.log").exists()


def found(run: Run) -> set[str]:
    return {finding.rule for finding in run.result.findings}


def test_the_destination_is_killed_at_completed(freepage: Freepage, freepage_folder: Path) -> None:
    run = disturbed(freepage, freepage_folder, "completed", "kill-destination", "completed")
    move = run.result.moves[0]
    assert move.source is not None
    assert move.destination is not None
    assert move.ended == "completed"
    assert move.source.statuses[-1] == move.destination.statuses[-1] == "completed"
    assert move.destination.end == "SIGKILL"
    assert run.verdict == "fail"
    # libvirt may have ended the source by then, or give the migration up and let it go on.
    assert found(run) in ({"status-disagrees"}, {"none-runs"}, {"status-disagrees", "none-runs"})


@pytest.mark.parametrize("at", ["pre-switchover", "device"])
def test_cancelled_late(freepage: Freepage, freepage_folder: Path, at: str) -> None:
    # Past libvirt, which a cancel at pre-switchover may leave waiting for ever: see docs/found.md.
    run = disturbed(freepage, freepage_folder, at, "cancel", "cancelled", "migration: {postcopy: true}\n")
    move = run.result.moves[0]
    assert move.source is not None
    assert move.destination is not None
    assert move.ended == move.source.statuses[-1]
    apart = move.ended != "completed" and move.destination.statuses[-1:] == ["completed"]
    assert apart == ("status-disagrees" in found(run) and move.ended != "completed")
    assert (run.verdict == "pass") == (move.ended == "cancelled" and not apart)


def test_cancelled_at_setup(freepage: Freepage, freepage_folder: Path) -> None:
    """Setup lasts for a millisecond: QEMU took the cancel in it, or the run says that it was missed."""
    run = disturbed(freepage, freepage_folder, "setup", "cancel", "cancelled")
    move = run.result.moves[0]
    assert move.source is not None
    in_time = move.source.statuses[:2] in (["setup", "cancelling"], ["setup", "cancelled"])
    missed = "the script's moment 'setup' had passed when its cancel came: QEMU was at" in run.result.reason
    if not found(run):
        assert run.verdict == ("pass" if in_time else "inconclusive")
        assert missed != in_time
    else:
        assert found(run) <= {"status-disagrees", "migration-ended"}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["virtiofsd-gone", "backup-under-way", "other-uuid", "tls-other-name"])
def test_a_guest_that_cannot_leave_goes_on(freepage: Freepage, scenario: str) -> None:
    """Its scenario says that the migration has to fail; nothing else is wrong."""
    run = freepage.run(scenario)
    assert (run.exit_code, run.verdict) == (0, "pass"), run
    (move,) = run.result.moves
    assert move.ended == "failed"
    assert move.source is not None
    assert move.source.statuses[-1] == "failed"
    assert run.result.guest.verify_bad == run.result.guest.exercise_bad == 0
    assert run.result.pages.total == 0


@pytest.mark.slow
def test_a_guest_that_leaves_though_it_must_not_is_told(freepage: Freepage, folder: Path) -> None:
    path = folder / "leaves.yaml"
    path.write_text(f"name: leaves\n{SMALL}moves: [{{ends: failed}}]\n", encoding="utf-8")
    run = freepage.run(path)
    assert run.verdict == "fail", run
    assert found(run) == {"migration-ended"}


@pytest.mark.slow
def test_a_destination_that_refuses_its_guest_is_no_finding(freepage: Freepage) -> None:
    run = freepage.run("other-machine")
    assert (run.exit_code, run.verdict) == (0, "pass"), run
    refused, arrived = run.result.moves
    assert (refused.ended, arrived.ended) == ("failed", "completed")


@pytest.mark.slow
def test_a_destination_that_does_not_start_is_the_files_fault(freepage: Freepage, folder: Path) -> None:
    path = folder / "nonsense.yaml"
    path.write_text(f"name: nonsense\n{SMALL}moves: [{{destination_args: [-device, nonsense]}}]\n", "utf-8")
    with pytest.raises(WrongInput) as caught:
        freepage.run(path)
    assert "nonsense.yaml:4:" in str(caught.value)
    assert "'nonsense' is not a valid device model name" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("filled", [True, False])
def test_what_qemu_frees_is_overwritten(freepage: Freepage, filled: bool) -> None:
    run = freepage.run("idle", set={"arm": "off", "guest.freed_is_filled": filled})
    assert run.verdict == "pass", run
    for side in ("source", "destination"):
        told = 'name="MALLOC_PERTURB_" value="165"' in (run.folder / f"{side}.xml").read_text("utf-8")
        assert told == filled


@pytest.mark.slow
def test_a_qemu_that_is_told_to_end_ends(freepage: Freepage) -> None:
    run = freepage.run("quit-under-way")
    assert (run.exit_code, run.verdict) == (0, "pass"), run
    assert "the QEMU that had the guest ended, as both were to" in run.result.reason
    (move,) = run.result.moves
    assert move.source is not None
    assert move.source.end is not None


@pytest.mark.slow
def test_a_suspended_guest_is_woken_up_on_its_new_host(freepage: Freepage) -> None:
    run = freepage.run("suspended")
    assert (run.exit_code, run.verdict) == (0, "pass"), run
    assert [move.ended for move in run.result.moves] == ["completed", "completed"]
    events = (run.folder / "events.jsonl").read_text("utf-8")
    for kind in ("SUSPEND", "WAKEUP"):
        assert events.count(f'"kind": "{kind}"') == 2, kind
