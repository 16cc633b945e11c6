# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a run, from everything that it found out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from harness.accel import full_name
from harness.events import EventStream, jsonable, step_seconds
from harness.evidence.check_times import check_seconds
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.commands import CommandLog
from harness.run.findings import Findings
from harness.run.replay_command import replay_command

if TYPE_CHECKING:
    from harness.migration.statistics import MigrationStatistics
    from harness.report.commands import GuestCommand, QmpCommand
    from harness.report.costs import Walk
    from harness.report.machine import MachineReport
    from harness.report.migration import Bytes, Postcopy, Time
    from harness.report.remote import RemoteReport
    from harness.report.result import GuestReport, Result
    from harness.report.wire import WireReport
    from harness.run.guest import Guest
    from harness.verdict.floor import Account
    from harness.verdict.judge import Judgement

#: From this version on QEMU's ``ram.transferred`` is all that it has sent (seen of 10.0, to the byte); of 7.2
#: it is less.
_COUNTS_BYTES: Final = (10, 0)


def build_result(
    plan: RunPlan,
    folder: RunFolder,
    events: EventStream,
    found: Findings,
    hosts: Mapping[str, object] | None,
    guest: Guest,
) -> tuple[Result, Judgement]:
    """Complete the verdict, and put everything down.

    ``hosts``: what remote ones tell of themselves; ``guest``: as it is now.
    """
    from harness.report.devices import Devices, Liveness
    from harness.report.judged_pages import FoundRule, NotCompared, Pages, witness_counts, wrong_pages_of
    from harness.report.migration import FileReport, Protocol
    from harness.report.result import Result
    from harness.verdict.facts import CourseOfRun, SentOverFloor
    from harness.verdict.floor import account_of
    from harness.verdict.rules.expected_outcome import MigrationNumbers
    from harness.verdict.wire import PagesCounted

    scenario, numbers, evidence = plan.resolved.scenario, found.statistics, found.evidence
    facts: list[object] = [CourseOfRun(found.found, found.unexercised), *found.guest.facts]
    account = None
    # The last that was made.
    how = scenario.migration_of(max(1, len(found.moves)))
    # What a page costs in a file with a place for each is not what it costs in a stream.
    if evidence is not None and numbers is not None and not how.mapped_ram and not how.hands_over:
        account = account_of(
            evidence.case,
            evidence.record,
            evidence.digests,
            sent=numbers.sent,
            pages_sent=numbers.normal_pages + numbers.zero_pages,
            multifd=how.switches_on("multifd"),
            walk=evidence.free.walk if evidence.free else None,
            walk_at=evidence.free.request if evidence.free else None,
        )
        facts.insert(0, SentOverFloor(account.sent_over_floor))
    if numbers is not None:
        total_ms = numbers.total_ms - round(1000 * found.held_seconds)
        facts.append(MigrationNumbers(found.passes, numbers.rounds, total_ms, numbers.downtime_ms))
        # What was on its way as a connection broke QEMU counts, and it sends that once more.
        if found.postcopy is None:
            # Each move that completes has the guest on the other host, whose QEMU sends next.
            there = sum(move.ended == "completed" for move in found.moves[:-1]) % 2
            sender = (plan.source_qemu, plan.destination_qemu)[there]
            all_bytes = sender.version_tuple >= _COUNTS_BYTES
            sent = numbers.sent if all_bytes else None
            facts.append(PagesCounted(numbers.normal_pages, numbers.zero_pages, sent))
    if found.stayed is not None:
        facts.append(found.stayed)
    if found.outcome is not None:
        facts.append(found.outcome)
    if found.convergence is not None:
        facts.append(found.convergence)
    if found.throttling is not None:
        facts.append(found.throttling)
    if found.free_memory is not None:
        facts.append(found.free_memory)
    if found.qemu_memory is not None:
        facts.append(found.qemu_memory)
    if found.guest.checks is not None:
        facts.append(found.guest.checks)
    recorded = evidence.record.statistics if evidence is not None else None
    judgement = found.memory.complete(*facts)
    versions = jsonable(plan.versions(guest.kernel_release))
    assert isinstance(versions, dict)
    result = Result(
        verdict=judgement.verdict,
        reason=_reason(judgement, found),
        expected=scenario.expect.verdict,
        expected_rule=scenario.expect.rule,
        scenario=scenario.name,
        arm=scenario.arm,
        accelerator=full_name(plan.resolved.accelerator),
        accelerator_reason=plan.accelerator_reason,
        seed=plan.resolved.seed,
        strict=scenario.strict,
        memory_bytes=scenario.guest.memory,
        warm=guest.warm,
        machine=_machine(plan),
        pages=Pages.of(judgement.pages),
        findings=[FoundRule.of(finding) for finding in judgement.findings],
        wrong_pages=wrong_pages_of(judgement),
        observed=dict(judgement.observed),
        witnesses=witness_counts(judgement.testimony, evidence.at_end) if evidence is not None else None,
        not_compared=[
            NotCompared(name=name, bytes=size, reason=reason)
            for name, (size, reason) in (evidence.not_compared.items() if evidence is not None else ())
        ],
        devices=Devices.of(evidence.devices) if evidence is not None else None,
        liveness=[
            Liveness(device=look.device, answers=look.answers, did=list(look.did), wrong=list(look.wrong))
            for look in found.looks
        ],
        wire=_wire(found),
        protocol=Protocol.of(recorded or found.counters),
        bytes=_bytes(account, numbers),
        time=_time(numbers, found.held_seconds),
        postcopy=_postcopy(found),
        rounds=numbers.rounds if numbers is not None else None,
        commands=_commands(found.commands),
        qmp=_answers(found.commands),
        file=FileReport(**asdict(found.file)) if found.file is not None else None,
        moves=list(found.moves),
        guest=_guest_report(found),
        cost=found.cost,
        work=found.guest.work,
        walk=_walk(found),
        free_blocks=found.free_blocks,
        remote=_remote(plan, hosts),
        phases=_phases(plan, events, found),
        checks={name: round(took, 4) for name, took in check_seconds(events.history()).items()},
        versions=versions,
        replay=replay_command(plan, folder),
        folder=str(folder.path),
    )
    return result, judgement


def _wire(found: Findings) -> WireReport | None:
    from harness.report.wire import WireReport

    wire = found.evidence.wire if found.evidence is not None else None
    return WireReport.of(wire) if wire is not None else None


def _commands(log: CommandLog) -> list[GuestCommand]:
    from harness.report.commands import GuestCommand

    return [
        GuestCommand(
            when=one.when,
            words=list(one.end.words),
            status=one.end.status,
            signal=one.end.signal,
            late=one.end.late,
            output=one.end.output,
            bytes=one.end.written,
        )
        for one in log.said
    ]


def _answers(log: CommandLog) -> list[QmpCommand]:
    from harness.report.commands import QmpCommand

    return [
        QmpCommand(
            move=one.move,
            side=one.answer.side,
            command=one.answer.command,
            answer=jsonable(one.answer.answer),
            error=one.answer.error,
        )
        for one in log.answered
    ]


def _machine(plan: RunPlan) -> MachineReport:
    from harness.report.machine import MachineReport

    guest, board = plan.resolved.scenario.guest, plan.board
    return MachineReport(
        type=guest.machine if board is None else board.machine,
        cpu=guest.cpu,
        cpu_lacks=[] if board is None else list(board.cpu_lacks),
    )


def _bytes(account: Account | None, numbers: MigrationStatistics | None) -> Bytes | None:
    from harness.report.migration import Bytes

    if account is None or numbers is None:
        return None
    return Bytes.of(account, full_pages=numbers.normal_pages, zero_pages=numbers.zero_pages)


def _time(numbers: MigrationStatistics | None, held_seconds: float) -> Time | None:
    from harness.report.migration import Time

    if numbers is None:
        return None
    return Time(
        total_ms=numbers.total_ms,
        downtime_ms=numbers.downtime_ms,
        setup_ms=numbers.setup_ms,
        held_ms=round(1000 * held_seconds),
    )


def _postcopy(found: Findings) -> Postcopy | None:
    """What came before the switch and what after it, by QEMU's counters at either end."""
    from harness.report.migration import Postcopy, PostcopyPages

    move, outcome = found.postcopy, found.outcome
    if move is None or outcome is None or outcome.source.switched is None:
        return None
    at, end, account = move.source.counters, move.counters, outcome.source
    began, ended = account.switched, account.completed
    before = at.full_pages + at.zero_pages
    pages = None
    if end is not None:
        pages = PostcopyPages(
            precopy=before, postcopy=end.full_pages + end.zero_pages - before, requests=end.requests
        )
    return Postcopy(
        guest="runs" if move.guest_ran else "paused",
        source_statuses=list(account.statuses),
        destination_statuses=list(outcome.destination.statuses),
        ms=round(1000 * (ended - began)) if began is not None and ended is not None else 0,
        breaks=account.statuses.count("postcopy-paused"),
        pages=pages,
        precopy_bytes=end.precopy_bytes if end is not None else None,
        downtime_bytes=end.downtime_bytes if end is not None else None,
        postcopy_bytes=end.postcopy_bytes if end is not None else None,
    )


def _remote(plan: RunPlan, hosts: Mapping[str, object] | None) -> RemoteReport | None:
    if hosts is None:
        return None
    from harness.report.remote import RemoteReport

    qemus = {"source": plan.source_qemu.version, "destination": plan.destination_qemu.version}
    memory = plan.resolved.scenario.guest.memory
    return RemoteReport.of(hosts, memory, plan.resolved.accelerator, qemus)


def _reason(judgement: Judgement, found: Findings) -> str:
    lost = found.guest.lost
    # Where its end is a finding, the reason has the words already.
    if lost is None or any(finding.rule == "guest-died" for finding in judgement.findings):
        return judgement.reason
    return f"{judgement.reason}; the guest was lost when it went on: {lost.message}"


def _phases(plan: RunPlan, events: EventStream, found: Findings) -> dict[str, float]:
    """Seconds by step, and from the command's start to the completed migration."""
    phases = {name: round(seconds, 3) for name, seconds in step_seconds(events.history()).items()}
    # The stream began a moment after the command did.
    if found.completed_at is None:
        return phases
    before = time.monotonic() - plan.began - events.now()
    return {**phases, "until_migrated": round(before + found.completed_at, 3)}


def _guest_report(found: Findings) -> GuestReport:
    from harness.report.result import GuestReport

    answers, checks = found.guest.answers, found.guest.checks
    if answers is None or checks is None:
        return GuestReport()
    return GuestReport(
        verify_pages=_int(answers.verify.get("pages")),
        verify_bad=checks.verify_bad,
        checksum_matches=checks.checksum_matches,
        exercise_pages=_int(answers.exercise.get("pages")),
        exercise_bad=checks.exercise_bad,
        kernel_warnings=None if checks.kernel_warnings is None else list(checks.kernel_warnings),
    )


def _walk(found: Findings) -> Walk | None:
    """What the module counts; there is none in arm hint, and no walk in arm off."""
    from harness.report.costs import Walk

    answers = found.guest.answers
    module = answers.counters.get("module") if answers is not None else None
    if not isinstance(module, Mapping):
        return None
    numbers = {str(key): value for key, value in module.items() if isinstance(value, int)}
    if not numbers.get("passes"):
        return None
    return Walk(
        walks=numbers["passes"],
        longest_ms=numbers.get("max_walk_ns", 0) / 1e6,
        answer_ms=numbers.get("last_answer_ns", 0) / 1e6,
        longest_hold_us=numbers.get("max_hold_ns", 0) / 1e3,
        pages_reported=numbers.get("pages_reported", 0),
    )


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
