# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that is switched to postcopy: really switched, every page right, broken connections recovered.

That it was switched is looked for in what both QEMUs said; that pages were asked for, in QEMU's count.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.hosts.this_machine import demand_hugepages, demand_userfaultfd
from harness.report.migration import Postcopy
from harness.report.result import Result
from harness.testing import Freepage, Run
from tests.vm.test_modes import skip_unless, switched_on

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def userfaultfd() -> None:
    """Whether this machine can do it at all."""
    skip_unless(demand_userfaultfd)


def switched(run: Run, *, breaks: int = 0, passed: bool = True) -> tuple[Result, Postcopy]:
    """Right, and in postcopy on both sides.

    ``passed``: whether a whole pass comes before the switch; without one, no page may have been sent by then.
    """
    assert run.exit_code == 0, str(run)
    result = run.result
    assert (result.verdict, result.pages.wrong, result.not_compared) == ("pass", 0, [])
    assert result.guest.kernel_warnings == []
    move = result.postcopy
    assert move is not None
    for statuses in (move.source_statuses, move.destination_statuses):
        assert statuses.count("postcopy-active") == 1 + breaks
        assert statuses.count("postcopy-paused") == breaks
        assert statuses[-1] == "completed"
    assert move.breaks == breaks
    assert move.pages is not None
    assert move.pages.precopy > 0 or not passed
    assert move.pages.postcopy > 0
    assert move.pages.requests > 0
    assert "postcopy-ram" in switched_on(run.folder)[0]
    return result, move


def test_every_page_is_what_the_source_held(freepage: Freepage) -> None:
    result, move = switched(freepage.run("postcopy"))
    assert move.guest == "paused"
    # Nothing ran, so there is nothing to explain.
    assert result.pages.explained == {}
    assert result.devices is not None
    assert result.devices.compared > 20


def test_a_broken_connection_is_recovered(freepage: Freepage) -> None:
    """Twice: the network goes down, and the destination closes its end."""
    result, _ = switched(freepage.run("postcopy-recover"), breaks=2)
    assert result.pages.explained == {}


@slow
def test_what_is_asked_for_has_a_connection_of_its_own(freepage: Freepage) -> None:
    run = freepage.run("postcopy-preempt")
    result, _ = switched(run, breaks=1)
    assert "postcopy-preempt" in switched_on(run.folder)[0]
    assert result.pages.explained == {}


@slow
def test_a_guest_that_runs_from_the_switch_on(freepage: Freepage) -> None:
    """The workload's pages are told apart by the formula; what is left is the kernel's, and little."""
    result, move = switched(freepage.run("postcopy-runs"))
    assert move.guest == "runs"
    assert result.pages.explained["written-since-switch"] > 0
    assert result.pages.explained["undecided-since-switch"] < 2000


@slow
def test_by_libvirt(freepage: Freepage) -> None:
    """libvirt has no paused postcopy: the guest runs, and is stopped to be compared."""
    run = freepage.run("postcopy-runs", set={"migration.postcopy": "libvirt"})
    result, move = switched(run)
    assert move.guest == "runs"
    assert result.pages.explained["written-since-switch"] > 0
    assert "-incoming" in (run.folder / "destination.command").read_text("utf-8")
    assert '"migrate-start-postcopy"' not in (run.folder / "qmp.jsonl").read_text("utf-8")


@slow
def test_libvirt_recovers_what_is_broken(freepage: Freepage) -> None:
    """By a call of migrate3 with VIR_MIGRATE_POSTCOPY_RESUME: no QMP command of ours has done it."""
    run = freepage.run("postcopy-recover-libvirt")
    result, move = switched(run, breaks=2)
    assert move.guest == "runs"
    assert result.moves[0].source is not None
    assert result.moves[0].source.statuses.count("postcopy-recover") == 2
    said = (run.folder / "qmp.jsonl").read_text("utf-8")
    assert '"migrate-recover"' not in said
    # Of the network, at both ends; the second time libvirt's own.
    assert said.count('"exec-oob": "migrate-pause"') == 2


@slow
@pytest.mark.parametrize("arm", ["hint", "info"])
def test_in_every_arm(freepage: Freepage, arm: str) -> None:
    """Upstream's hint leaves nothing out of a migration that may be switched; free page info does."""
    result, _ = switched(freepage.run("postcopy", arm=arm))
    assert result.pages.explained == {}
    assert (result.pages.skipped > 0) == (arm == "info")
    assert result.protocol.refused == ""


def test_what_is_free_is_left_out_and_can_be_fetched(freepage: Freepage) -> None:
    """The switch comes when bits have been cleared and no sync has come since."""
    result, _ = switched(freepage.run("postcopy-freed"), passed=False)
    assert result.pages.skipped_percent > 60
    assert result.pages.explained == {}
    assert 0 < result.protocol.fetched < 256


@slow
def test_pages_that_were_left_out_and_written_before_the_switch(freepage: Freepage) -> None:
    """The sync of the switch brings them back; then the guest takes what is free, and faults on it."""
    result, move = switched(freepage.run("postcopy-freed-runs"), passed=False)
    assert move.guest == "runs"
    assert result.protocol.skipped - result.pages.skipped >= 2048
    assert result.pages.explained.get("undecided-since-switch", 0) < 2000


@slow
def test_switched_while_the_guest_is_asked(freepage: Freepage) -> None:
    """It answers on its new host, where nobody has asked."""
    result, _ = switched(freepage.run("postcopy-freed-asked"), passed=False)
    assert (result.protocol.requests, result.protocol.chunks, result.pages.skipped) == (1, 0, 0)


@slow
def test_switched_before_an_answer_is_used(freepage: Freepage) -> None:
    """It is used before the sync of the switch, or it is stale."""
    result, _ = switched(freepage.run("postcopy-freed-answered"), passed=False)
    assert result.protocol.responses == 1
    assert (result.pages.skipped > 0) == (result.protocol.stale == 0)
    assert result.pages.explained == {}


@slow
def test_what_was_left_out_is_not_missing_at_a_recovery(freepage: Freepage) -> None:
    """Nor with a connection of its own for what is fetched."""
    result, _ = switched(freepage.run("postcopy-freed-recover"), breaks=1, passed=False)
    assert result.pages.skipped_percent > 50
    assert result.protocol.fetched > 0
    assert result.pages.explained == {}


@slow
def test_huge_pages_are_fetched_whole(freepage: Freepage) -> None:
    skip_unless(demand_hugepages, 512 << 20)
    result, _ = switched(freepage.run("postcopy-freed", set={"guest.hugepages": True}), passed=False)
    assert result.pages.explained == {}
    assert result.protocol.fetched % 512 == 0


@slow
def test_huge_pages_are_placed_whole(freepage: Freepage) -> None:
    skip_unless(demand_hugepages, 256 << 20)
    result, _ = switched(freepage.run("postcopy-huge"))
    assert result.pages.explained == {}


@slow
def test_another_process_waits_for_pages_as_well(freepage: Freepage) -> None:
    """The NIC's; without a patch of ours it ends as the guest arrives (docs/found.md)."""
    run = freepage.run("postcopy-vhost-user")
    assert (run.verdict, run.exit_code) == ("pass", 0), run.result.reason
    assert run.result.postcopy is not None
    assert run.result.guest.kernel_warnings == []


def written(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


THERE_AND_BACK = """\
name: there-and-back-by-postcopy
arm: off
guest: {memory: 192MiB}
workload: {kind: rewrite, noise: 64MiB}
migration: {postcopy: true, bandwidth: 48MiB/s, downtime_limit_ms: 1}
moves: [{}, {}]
script:
  - at: active
    do: [{action: postcopy-start, bandwidth: 32MiB/s}]
  - at: postcopy-active
    do: [{action: postcopy-touch}]
  - at: active
    move: 2
    do: [{action: postcopy-start, guest: runs, bandwidth: 32MiB/s}]
"""


@slow
def test_there_and_back(freepage: Freepage, freepage_folder: Path) -> None:
    """In the first pass nearly everything is still to come, zero pages among it."""
    result, move = switched(freepage.run(written(freepage_folder, THERE_AND_BACK)))
    assert [end.verdict for end in result.moves] == ["pass", "pass"]
    assert move.guest == "runs"


@slow
def test_given_up_as_it_switches(freepage: Freepage) -> None:
    run = freepage.run("postcopy-cancelled")
    assert (run.verdict, run.exit_code) == ("pass", 0)
    assert [end.ended for end in run.result.moves] == ["cancelled", "completed"]


TOO_LATE = """\
name: switched-too-late
arm: off
guest: {memory: 192MiB}
workload: {kind: idle}
migration: {postcopy: true, downtime_limit_ms: 2000}
script: [{at: pre-switchover, do: [{action: postcopy-start}]}]
expect: {verdict: inconclusive}
"""


@slow
def test_a_switch_that_comes_too_late_is_no_pass(freepage: Freepage, freepage_folder: Path) -> None:
    run = freepage.run(written(freepage_folder, TOO_LATE))
    assert (run.verdict, run.exit_code) == ("inconclusive", 0)
    assert "postcopy-not-started" in run.result.reason
    assert run.result.postcopy is None


BREAKS = """\
name: broken-for-good
arm: off
guest: {memory: 192MiB}
workload: {kind: rewrite, noise: 64MiB}
migration: {postcopy: true, bandwidth: 48MiB/s, downtime_limit_ms: 1, stuck_s: 5}
script:
  - at: active
    do: [{action: postcopy-start, bandwidth: 1MiB/s}]
  - at: postcopy-active
    do: [{action: postcopy-break}]
expect: {verdict: fail, rule: none-runs}
"""


@slow
def test_nobody_mends_it(freepage: Freepage, freepage_folder: Path) -> None:
    """Neither side has the guest, and neither can go on."""
    run = freepage.run(written(freepage_folder, BREAKS))
    assert run.exit_code == 0, str(run)
    assert {finding.rule for finding in run.result.findings} >= {"stuck", "none-runs"}


@slow
def test_a_connection_that_breaks_at_the_switch_loses_the_guest(
    freepage: Freepage, freepage_folder: Path
) -> None:
    """As in docs/found.md: neither side can go on, and there is nothing to recover."""
    early = BREAKS.replace("{action: postcopy-break}", "{action: postcopy-break, early: true}")
    run = freepage.run(written(freepage_folder, early))
    assert run.exit_code == 0, str(run)
    assert "none-runs" in {finding.rule for finding in run.result.findings}


MOVED_AND_RESUMED = """\
name: moved-and-resumed
arm: off
guest: {memory: 192MiB}
workload: {kind: rewrite, noise: 8MiB, rate: 2000}
migration: {postcopy: true, bandwidth: 48MiB/s, downtime_limit_ms: 1}
script:
  - at: pass
    number: 3
    do: [{action: postcopy-start, guest: runs, bandwidth: 512KiB/s}]
  - at: postcopy-active
    do:
      - {action: postcopy-touch, pages: 4}
      - {action: stall}
      - {action: kill-destination}
      - {action: unstall}
expect: {verdict: fail, rule: two-run}
"""


@slow
def test_a_source_goes_on_with_a_guest_that_has_run_elsewhere(
    freepage: Freepage, freepage_folder: Path
) -> None:
    """As in docs/found.md.  What is left fits into the source's socket; the source then waits for the end."""
    run = freepage.run(written(freepage_folder, MOVED_AND_RESUMED))
    assert run.exit_code == 0, str(run)
    assert "two-run" in {finding.rule for finding in run.result.findings}
