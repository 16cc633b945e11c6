# SPDX-License-Identifier: GPL-2.0-or-later
"""The migrations of a run, one after the other: each judged, then the next, or the end of the run.

Most runs have one.  A scenario with several takes a guest there and back, or
cancels a migration and tries again; each that completes takes the guest to the
other host, and what is wrong after any of them ends the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.errors import GuestLost
from harness.events import Deadline, EventStream
from harness.evidence.gather import Evidence, gather
from harness.evidence.guest_checks import resume
from harness.evidence.keep import keep_pages
from harness.evidence.qemu_memory import own_files, own_memory
from harness.evidence.switch_over import Abort, SwitchOver
from harness.evidence.work_meter import WorkMeter
from harness.evidence.workload_reports import WorkloadReports
from harness.memory.record import Request
from harness.migration.statistics import MigrationError, OutOfTimeError, StuckError
from harness.report.folder import RunFolder
from harness.report.move import MoveEnd
from harness.report.throttle import Throttle
from harness.run.announcing import announcing
from harness.run.course import Arrival, Course, Setback, Turn
from harness.run.findings import Findings
from harness.run.live_migration import LiveMigration
from harness.run.notes import CourseNotes
from harness.run.review import Review
from harness.scenario.actions.migration import Cont, Stop
from harness.scenario.script import actions
from harness.verdict.finding import Finding
from harness.verdict.judge import Judgement, judge_memory
from harness.verdict.outcome import KIND as OUTCOME
from harness.verdict.rules.expected_outcome import Convergence

if TYPE_CHECKING:
    import libvirt

    from harness.run.boot import ReadyGuest
    from harness.run.several_guests.start_line import Line
    from harness.run.stand_still import StandStill
    from harness.scenario.script import Entry

#: The guest's first answer after a migration that was given up.
GOES_ON_SECONDS: Final = 60.0


class Journey:
    """All migrations of a run.

    ``last_message`` is the guest's last kernel message from before; ``stand``: where a person wants the run
    to stand still; ``line``: where it waits for other guests before each move.
    """

    def __init__(
        self,
        ready: ReadyGuest,
        folder: RunFolder,
        events: EventStream,
        last_message: int,
        stand: StandStill | None = None,
        line: Line | None = None,
    ) -> None:
        self._stand = stand
        self._line = line
        self._ready = ready
        self._folder = folder
        self._events = events
        control, resolved = ready.guest.control, ready.plan.resolved
        meter = WorkMeter(control, resolved.scenario, events)
        reports = WorkloadReports(control, resolved, ready.guest.disk, events, ready.guest.address)
        self._course = Course(meter, reports, last_message)
        self._notes = CourseNotes(ready, events, self._course)
        self._review = Review(ready, events, self._course, self._notes)

    @contextlib.contextmanager
    def migrate_and_judge(self) -> Iterator[Arrival | Setback]:
        """Steps 6 to 8, for each of the moves.  In the block the last migration's QEMUs still stand."""
        self._notes.run_commands("before")
        self._ready.guest.board_devices(self._ready.lab.source, self._events)
        self._course.free_before = self._ask_free()
        self._course.meter.begin()
        with self._course.reports, self._moves() as end:
            yield end

    @contextlib.contextmanager
    def _moves(self) -> Iterator[Arrival | Setback]:
        ready = self._ready
        moves = ready.plan.resolved.scenario.moves
        domain, hosts = ready.domain, (ready.lab.source, ready.lab.destination)
        for number, move in enumerate(moves, 1):
            turn = Turn(number, len(moves), move, hosts)
            place = self._folder if number == 1 else self._folder.below(f"move-{number}")
            script = self._entries(number)
            self._let_go_on(number, domain)
            if self._line is not None:
                self._line.meet()
            with LiveMigration(
                ready.guest,
                hosts,
                place,
                self._events,
                script,
                move=number,
                stand=self._stand,
                line=self._line,
            ) as migration:
                end = self._migrate(turn, migration, domain)
                if isinstance(end, Abort):
                    runs = self._gone_on(turn, migration, end)
                    if turn.move.ends == "completed" or turn.last or not runs or end.hangs:
                        if turn.paused and runs:
                            self._wake(turn, domain)
                        yield Setback(turn, migration, runs, end.ended, migration.ends_guest)
                        return
                    continue
                heard = announcing(hosts[1], ready.plan.resolved.scenario, number)
                arrival = replace(self._judge(turn, migration, end, place), announcing=heard)
                if arrival.memory.verdict == "fail" or turn.last:
                    yield arrival
                    return
                arrival = self._review.on_the_way(arrival)
                if arrival.lost is not None:
                    yield arrival
                    return
                domain, hosts = end.domain, (hosts[1], hosts[0])
        raise AssertionError("the last move has an end of its own")

    def _let_go_on(self, number: int, domain: libvirt.virDomain) -> None:
        """A guest that stood still over the last move, which was given up, goes on for this one."""
        moves = self._ready.plan.resolved.scenario.moves
        before = moves[number - 2] if number > 1 else None
        stands = before is not None and before.guest != "running" and before.ends != "completed"
        if stands and moves[number - 1].guest == "running":
            domain.resume()

    def _wake(self, turn: Turn, domain: libvirt.virDomain) -> None:
        """A guest that could not leave is asked for its pages, for which it has to run."""
        resume(domain, self._ready.guest.control, turn.hosts[0].name, self._events)

    def check(self, end: Arrival | Setback) -> Findings:
        """Step 9: the guest goes on, and checks itself.  All that the run has found out."""
        return self._review.check(end)

    def _ask_free(self) -> int | None:
        """Asked only where the scenario expects something of it."""
        if self._ready.plan.resolved.scenario.expect.guest_free_min is None:
            return None
        deadline = Deadline(GOES_ON_SECONDS, "the guest's free memory")
        free = self._ready.guest.control.call("stats", deadline=deadline).get("mem_free")
        return free if isinstance(free, int) else None

    def _entries(self, number: int) -> tuple[Entry, ...]:
        script = self._ready.plan.resolved.scenario.script
        return tuple(entry for entry in script if entry.move == number)

    def _migrate(self, turn: Turn, migration: LiveMigration, domain: libvirt.virDomain) -> SwitchOver | Abort:
        scenario, course = self._ready.plan.resolved.scenario, self._course
        end: SwitchOver | Abort
        with self._events.step("migrate", arm=scenario.arm, move=turn.number) as step:
            try:
                how = scenario.migration_of(turn.number)
                end = migration.run(domain, how, paused=turn.paused, suspended=turn.suspended)
            except (MigrationError, GuestLost, OutOfTimeError) as error:
                late = isinstance(error, OutOfTimeError)
                if late and scenario.expect.converged is None:
                    raise
                # What goes wrong before QEMU has begun says nothing of the migration.
                if not migration.begun:
                    raise
                end = migration.abort(error)
                if migration.killed_from_outside(*migration.gone):
                    raise
                if isinstance(error, StuckError):
                    course.found.append(Finding("stuck", OUTCOME, turn.named(error.message)))
                    end = replace(end, hangs=True)
                if late:
                    course.convergence = Convergence(False, error.message)
                    end = replace(end, hangs=True)
                step.note(ended=end.ended, reason=end.reason)
            else:
                late = False
                course.convergence = Convergence(True)
                if (numbers := end.statistics) is not None:
                    step.note(sent=numbers.sent, total_ms=numbers.total_ms, downtime_ms=numbers.downtime_ms)
        self._notes.file(turn, migration)
        self._notes.throttle(turn, migration, moved=isinstance(end, SwitchOver))
        if isinstance(end, SwitchOver):
            # One that was given up may not have been told yet.
            self._notes.modes(turn, migration, self._entries(turn.number))
            self._notes.bitmaps(turn, migration)
            self._notes.machine(turn, migration)
        self._notes.take_news(turn, migration)
        ended = end.ended if isinstance(end, Abort) else "completed"
        # That it was cancelled is our doing, and what it was cancelled for is found by its own rule.
        if ended != turn.move.ends and not late:
            text = f"the migration ended {ended}, expected {turn.move.ends}"
            course.found.append(Finding("migration-ended", "expectation", turn.named(text)))
        if isinstance(end, Abort):
            course.note_unreached(turn, migration)
        if migration.last_message is not None:
            course.last_message = migration.last_message
        return end

    def _gone_on(self, turn: Turn, migration: LiveMigration, end: Abort) -> bool:
        """After a migration that was given up the guest goes on where it was.  Whether it does."""
        self._course.moves.append(
            MoveEnd(
                ended=end.ended,
                reason=end.reason,
                modes=migration.modes,
                throttle=Throttle.of(migration.throttle),
            )
        )
        reason = turn.move.reason
        if reason is not None and reason not in end.reason:
            text = f"the reason given is {end.reason!r}, expected {reason!r} in it"
            self._course.found.append(Finding("migration-reason", "expectation", turn.named(text)))
        left_stopped = turn.paused or self._left_stopped(turn)
        outcome = migration.outcome(moved=False, stands_still=left_stopped)
        self._notes.outcome(turn, migration, outcome)
        if outcome.source.end is not None:
            return False
        control = self._ready.guest.control
        control.rebind(turn.hosts[0].name)
        if turn.paused:
            return True
        if not outcome.source.runs:
            return False
        if turn.suspended:
            self._notes.wake_up(turn, migration.monitor("source"), turn.hosts[0].name)
        deadline = Deadline(GOES_ON_SECONDS, "the guest's answer after a migration given up")
        try:
            control.call("ping", deadline=deadline)
        except GuestLost as error:
            self._notes.death(turn, error)
            return False
        history = self._events.history()
        memory, files = own_memory(history), own_files(history)
        if memory is not None and files is not None:
            self._course.qemu_memory.append(memory)
            self._course.qemu_files.append(files)
            self._events.emit("qemu-memory", move=turn.number, own=memory, files=files)
        return True

    def _left_stopped(self, turn: Turn) -> bool:
        """Whether the script has left the guest stopped."""
        done = list(actions(self._entries(turn.number)))
        last = next((one for one in reversed(done) if isinstance(one, Stop | Cont)), None)
        return isinstance(last, Stop)

    def _judge(
        self, turn: Turn, migration: LiveMigration, switch_over: SwitchOver, place: RunFolder
    ) -> Arrival:
        with self._events.step("judge"):
            evidence = gather(switch_over, self._ready.plan.resolved, self._events)
            facts = evidence.devices, evidence.wire, evidence.disks
            known = [one for one in facts if not isinstance(one, str | None)]
            memory = judge_memory(evidence.case, *known)
            # The guest that goes on writes to its pages.
            keep_pages(memory.judgement, switch_over, place)
            if memory.verdict == "fail":
                migration.keep_file()
        migration.judged(memory, last=turn.last)
        self._course.moves.append(_completed(memory.judgement, evidence, migration))
        return Arrival(turn, migration, switch_over, evidence, memory)


def _completed(memory: Judgement, evidence: Evidence, migration: LiveMigration) -> MoveEnd:
    # Those that left, answered or not.
    requests = sum(isinstance(entry, Request) for entry in evidence.record.log)
    return MoveEnd(
        ended="completed",
        reason=memory.reason,
        verdict=memory.verdict,
        skipped=memory.pages.skipped,
        requests=requests,
        modes=migration.modes,
        throttle=Throttle.of(migration.throttle),
    )
