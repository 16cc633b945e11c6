# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ended: who ran when, what became of both QEMUs, and the rules about it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from harness.events import Deadline, EventStream
from harness.evidence.outcomes import account_of, process_end, reports_in
from harness.hosts.obituary import Obituaries, parse, write
from harness.verdict.outcome import MigrationOutcome, ProcessEnd, QemuAccount, outcome_findings, overlap

SOURCE = QemuAccount("source", ("setup", "active", "completed"), ((0.0, 5.0),))
DESTINATION = QemuAccount("destination", ("active", "completed"), ((6.0, None),))
CLEAN = MigrationOutcome(SOURCE, DESTINATION)


def rules(outcome: MigrationOutcome) -> list[str]:
    return [finding.rule for finding in outcome_findings(outcome)]


def test_a_clean_migration_is_clean() -> None:
    assert rules(CLEAN) == []


def test_a_clean_cancel_is_clean() -> None:
    source = replace(SOURCE, statuses=("active", "cancelling", "cancelled"), running=((0.0, None),))
    destination = replace(DESTINATION, statuses=("active",), running=(), end=ProcessEnd(status=0))
    assert rules(MigrationOutcome(source, destination, moved=False, cancelled=True)) == []


def test_two_that_run_at_once() -> None:
    both = replace(CLEAN, source=replace(SOURCE, running=((0.0, 6.25),)))
    assert overlap(both) == pytest.approx(0.25)
    (finding,) = outcome_findings(both)
    assert finding.rule == "two-run"
    assert "250.0 ms" in finding.text
    still = replace(CLEAN, source=replace(SOURCE, running=((0.0, 5.0), (7.0, None))))
    assert "still do" in outcome_findings(still)[0].text


def test_one_that_hands_over_does_not_run_beside_the_other() -> None:
    assert overlap(replace(CLEAN, source=replace(SOURCE, running=((0.0, 6.0),)))) == 0


def test_a_source_that_goes_on_after_its_own_completion() -> None:
    source = replace(SOURCE, running=((0.0, 5.0), (6.0, 7.0)), completed=5.5)
    destination = replace(DESTINATION, running=((8.0, None),))
    assert rules(MigrationOutcome(source, destination)) == ["two-run"]
    before = replace(source, running=((0.0, 5.0), (5.1, 5.4)))
    assert rules(MigrationOutcome(before, destination)) == []


def test_nobody_runs() -> None:
    stopped = replace(CLEAN, destination=replace(DESTINATION, running=((6.0, 7.0),)))
    assert rules(stopped) == ["none-runs"]
    assert rules(replace(stopped, stands_still=True)) == []
    # One that has ended runs nothing, whatever it said last.
    dead = replace(CLEAN, destination=replace(DESTINATION, end=ProcessEnd(signal="SIGKILL")))
    assert rules(dead) == ["none-runs"]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_qemu_that_crashes(name: str) -> None:
    crashed = replace(CLEAN, source=replace(SOURCE, end=ProcessEnd(signal=name), last_words=("Segv!",)))
    (finding,) = outcome_findings(crashed)
    assert finding.rule == "qemu-crashed"
    assert name in finding.text
    assert "Segv!" in finding.text


def test_a_qemu_that_was_ended_has_not_crashed() -> None:
    for end in (ProcessEnd(signal="SIGKILL"), ProcessEnd(signal="SIGTERM"), ProcessEnd(status=0)):
        assert rules(replace(CLEAN, source=replace(SOURCE, end=end))) == []


def test_a_sanitizer_report_counts_without_an_end() -> None:
    words = ("==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x7f",)
    (finding,) = outcome_findings(replace(CLEAN, source=replace(SOURCE, reports=reports_in(words))))
    assert finding.rule == "qemu-crashed"
    assert "heap-use-after-free" in finding.text


def test_the_destination_completed_and_the_source_did_not() -> None:
    source = replace(SOURCE, statuses=("pre-switchover", "cancelling", "cancelled"), running=((0.0, None),))
    destination = replace(DESTINATION, running=())
    assert rules(MigrationOutcome(source, destination, moved=False, cancelled=True)) == ["status-disagrees"]


@pytest.mark.parametrize(
    ("statuses", "moved", "word"),
    [
        (("active", "completed"), True, "completed"),
        # libvirt gives up what QEMU has completed: its destination was killed in that instant.
        (("active", "completed"), False, "completed"),
        (("active", "cancelling", "cancelled"), False, "cancelled"),
        (("setup", "failed"), False, "failed"),
        (("active", "cancelling"), False, "unfinished"),
        # Refused: the source was never asked.
        ((), False, "failed"),
    ],
)
def test_the_word_is_the_source_s_last(statuses: tuple[str, ...], moved: bool, word: str) -> None:
    source = replace(SOURCE, statuses=statuses, running=((0.0, None),))
    destination = replace(DESTINATION, statuses=(), running=())
    for cancelled in (False, True):
        assert MigrationOutcome(source, destination, moved=moved, cancelled=cancelled).ending == word


def test_a_source_that_ended_without_a_word() -> None:
    source = replace(SOURCE, statuses=("active",), end=ProcessEnd(signal="SIGSEGV"))
    assert MigrationOutcome(source, replace(DESTINATION, statuses=()), moved=False).ending == "failed"


def test_a_destination_killed_when_both_had_completed() -> None:
    """The source goes on alone: nobody else has run the guest, but the words do not fit."""
    source = replace(SOURCE, running=((0.0, 5.0), (6.5, None)), completed=6.0)
    destination = replace(DESTINATION, running=(), end=ProcessEnd(signal="SIGKILL"), ended=6.2)
    outcome = MigrationOutcome(source, destination, moved=False)
    (finding,) = outcome_findings(outcome)
    assert finding.rule == "status-disagrees"
    assert "both QEMUs say 'completed'" in finding.text
    assert "runs on source" in finding.text
    # One that lives has the guest as well.
    assert "two-run" in rules(replace(outcome, destination=replace(destination, end=None, ended=None)))


def test_two_last_words_that_do_not_fit() -> None:
    destination = replace(DESTINATION, statuses=("active", "failed"))
    assert rules(replace(CLEAN, destination=destination)) == ["status-disagrees"]
    source = replace(SOURCE, statuses=("active", "failed"))
    assert rules(replace(CLEAN, source=source, destination=replace(DESTINATION, statuses=()))) == [
        "status-disagrees"
    ]


def test_a_cancel_that_came_too_late_is_no_disagreement() -> None:
    assert rules(replace(CLEAN, cancelled=True)) == []


def test_a_cancel_that_ends_as_failed() -> None:
    source = replace(SOURCE, statuses=("setup", "failed"), running=((0.0, None),))
    destination = replace(DESTINATION, statuses=(), running=())
    assert rules(MigrationOutcome(source, destination, moved=False, cancelled=True)) == ["status-disagrees"]
    assert rules(MigrationOutcome(source, destination, moved=False)) == []


def test_a_source_that_completed_though_the_run_says_failed() -> None:
    source = replace(SOURCE, running=((0.0, None),))
    destination = replace(DESTINATION, statuses=("active",), running=(), end=ProcessEnd(signal="SIGKILL"))
    assert rules(MigrationOutcome(source, destination, moved=False)) == ["status-disagrees"]


# --- from the event stream


def stream_of_a_migration() -> EventStream:
    events = EventStream()
    events.emit("qemu-attached", source="source.qmp", pid=11, running=True, at=100.0)
    events.emit("qemu-attached", source="destination.qmp", pid=12, running=False, at=100.5)
    for status, at in (("setup", 101.0), ("active", 101.5)):
        events.emit("MIGRATION", source="source.qmp", data={"status": status}, at=at)
    events.emit("STOP", source="source.qmp", data={}, at=102.0)
    events.emit("MIGRATION", source="source.qmp", data={"status": "completed"}, at=103.0)
    events.emit("RESUME", source="destination.qmp", data={}, at=104.0)
    return events


def test_accounts_from_events() -> None:
    events = stream_of_a_migration()
    events.emit("process-ended", pid=11, returncode=-11, at=103.5)
    source = account_of("source", events.history(), since=0)
    destination = account_of("destination", events.history(), since=0)
    assert source == QemuAccount(
        "source",
        ("setup", "active", "completed"),
        ((100.0, 102.0),),
        end=ProcessEnd(signal="SIGSEGV"),
        completed=103.0,
        ended=103.5,
    )
    assert destination.running == ((104.0, None),)
    assert destination.runs
    assert rules(MigrationOutcome(source, destination)) == ["qemu-crashed"]


def test_the_end_of_a_process_ends_its_running() -> None:
    events = stream_of_a_migration()
    events.emit("process-ended", pid=12, returncode=-9, at=105.0)
    destination = account_of("destination", events.history(), since=0)
    assert destination.running == ((104.0, 105.0),)
    assert not destination.runs


def test_the_migration_that_describes_the_fields_is_another() -> None:
    events = stream_of_a_migration()
    for status in ("failed", "setup", "active", "completed"):
        events.emit("MIGRATION", source="destination.qmp", data={"status": status}, at=105.0)
    assert account_of("destination", events.history(), since=0).statuses == ("failed",)


def test_an_earlier_migration_is_not_this_one() -> None:
    events = stream_of_a_migration()
    since = len(events.history())
    events.emit("qemu-attached", source="source.qmp", pid=12, running=True, at=110.0)
    events.emit("process-ended", pid=11, returncode=-11, at=111.0)
    account = account_of("source", events.history(), since=since)
    assert account.statuses == ()
    assert account.end is None
    assert account.runs


def test_words_of_returncodes() -> None:
    assert str(process_end(1)) == "exit status 1"
    assert str(process_end(-signal.SIGABRT)) == "SIGABRT"
    assert str(process_end(-63)).startswith(("SIG", "signal "))


def test_obituaries_end_while_a_fork_holds_their_pipe() -> None:
    reading, writing = os.pipe()
    with Obituaries(EventStream(), reading):
        child = os.fork()
        if child == 0:
            signal.pause()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writing)


def test_obituaries_are_emitted_as_they_come() -> None:
    events = EventStream()
    reading, writing = os.pipe()
    with Obituaries(events, reading):
        write(writing, 7, -11, core=True, name="qemu system\nx")
        # A line may come in two pieces.
        os.write(writing, b"8 ")
        os.write(writing, b"0 0 \n")
        ended = events.wait(lambda event: event.data.get("pid") == 8, Deadline(10, "the second obituary"))
    assert ended.data["returncode"] == 0
    told = [event.data for event in events.history() if event.kind == "process-ended"]
    assert [(data["pid"], data["core"]) for data in told] == [(7, True), (8, False)]
    assert told[0]["name"] == "qemu system?x"
    os.close(writing)
    assert parse("1 2 0 \nodd\n3 -6 1 qemu-system-x86\n") == (
        (1, 2, False, ""),
        (3, -6, True, "qemu-system-x86"),
    )


@pytest.mark.parametrize(
    ("failed_there", "found"), [(6.1, []), (5.9, ["qemu-ended"]), (None, ["qemu-ended"])]
)
def test_a_destination_that_ends_since_the_source_gave_up(
    failed_there: float | None, found: list[str]
) -> None:
    source = replace(SOURCE, statuses=("device", "failed"), failed=6.0, running=((0.0, None),))
    destination = QemuAccount(
        *("destination", ("active", "failed")),
        end=ProcessEnd(status=1),
        last_words=("load of migration failed: Invalid argument",),
        failed=failed_there,
    )
    outcome = MigrationOutcome(source, destination, moved=False, unasked=frozenset({"destination"}))
    assert rules(outcome) == found
    # A crash is one, whenever it comes.
    crashed = replace(destination, end=ProcessEnd(signal="SIGSEGV"))
    assert rules(replace(outcome, destination=crashed)) == ["qemu-crashed"]


def test_a_source_that_is_told_to_end_has_to_end_whole() -> None:
    source = replace(SOURCE, statuses=("active", "cancelling"), end=ProcessEnd(status=0))
    destination = replace(DESTINATION, statuses=("active", "failed"), running=(), end=ProcessEnd(status=1))
    told = MigrationOutcome(source, destination, moved=False, told_to_end=frozenset({"source"}))
    assert rules(told) == []
    assert told.ending == "failed"
    # The same of a QEMU that nobody has told.
    assert rules(replace(told, told_to_end=frozenset())) == ["none-runs"]
    assert rules(replace(told, source=replace(source, end=ProcessEnd(signal="SIGSEGV")))) == ["qemu-crashed"]
    [finding] = outcome_findings(replace(told, source=replace(source, end=ProcessEnd(status=1))))
    assert finding.rule == "qemu-ended"
    assert "which was told to end, ended with exit status 1" in finding.text
    hanging = replace(told, source=replace(source, end=None), unended=frozenset({"source"}))
    assert rules(hanging) == ["stuck"]
