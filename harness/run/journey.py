# SPDX-License-Identifier: GPL-2.0-or-later
"""The migrations of a run, one after the other: each judged, then the next, or the end of the run.

Most runs have one.  A scenario with several takes a guest there and back, or
cancels a migration and tries again; each that completes takes the guest to the
other host, and what is wrong after any of them ends the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import GuestLost, HostLost, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.gather import Evidence, gather
from harness.evidence.guest_checks import CHECK_SECONDS, WRONG_GUEST_SECONDS, check, check_guest, resume
from harness.evidence.keep import keep_pages
from harness.evidence.qemu_memory import own_files, own_memory
from harness.evidence.switch_over import Abort, SwitchOver
from harness.evidence.wire_witness import forget_stream
from harness.evidence.work_meter import WorkMeter
from harness.evidence.workload_reports import WorkloadReports
from harness.guest.death import DeathWatch, halted_for_good
from harness.memory.record import Request
from harness.migration.modes import LIMITS, Modes
from harness.migration.statistics import MigrationError, OutOfTimeError, StuckError
from harness.report.folder import RunFolder
from harness.report.move import MoveEnd
from harness.report.throttle import Throttle
from harness.run.course import Arrival, Course, Setback, Turn
from harness.run.findings import Findings, GuestReview
from harness.run.live_migration import LiveMigration
from harness.run.suspending import wake_up
from harness.scenario.actions.migration import Cont, Stop
from harness.scenario.actions.monitor import Qmp
from harness.verdict.facts import StayedPut
from harness.verdict.finding import Finding
from harness.verdict.judge import Judgement, judge_memory
from harness.verdict.locks import lock_findings
from harness.verdict.modes import ModesAsked, modes_findings
from harness.verdict.outcome import KIND as OUTCOME
from harness.verdict.outcome import MigrationOutcome, outcome_findings
from harness.verdict.rules.expected_outcome import Convergence, FreeMemory
from harness.verdict.rules.growth import QemuMemory
from harness.verdict.throttle import Throttling, most_percent, not_slowed, throttle_findings

if TYPE_CHECKING:
    import libvirt

    from harness.migration.qmp import Monitor
    from harness.report.costs import Work
    from harness.run.boot import ReadyGuest
    from harness.run.several_guests.start_line import Line
    from harness.run.stand_still import StandStill
    from harness.scenario.script import Entry

#: What is left of the script once the guest runs on its new host.
SCRIPT_SECONDS: Final = 600.0
#: What a switch to postcopy comes to that comes too late.
NOT_SWITCHED: Final = "the migration had completed before it was switched to postcopy (postcopy-not-started)"
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

    @contextlib.contextmanager
    def migrate_and_judge(self) -> Iterator[Arrival | Setback]:
        """Steps 6 to 8, for each of the moves.  In the block the last migration's QEMUs still stand."""
        self._run_commands("before")
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
                        yield Setback(turn, migration, runs, end.ended)
                        return
                    continue
                arrival = self._judge(turn, migration, end, place)
                if arrival.memory.verdict == "fail" or turn.last:
                    yield arrival
                    return
                arrival = self._on_the_way(arrival)
                if arrival.lost is not None:
                    yield arrival
                    return
                domain, hosts = end.domain, (hosts[1], hosts[0])
        raise AssertionError("the last move has an end of its own")

    def _run_commands(self, when: Literal["before", "after"]) -> None:
        commands = self._ready.plan.resolved.scenario.guest.commands
        chosen = commands.before if when == "before" else commands.after
        control = self._ready.guest.control
        self._course.found += self._course.commands.run(when, chosen, control, self._events)

    def _take_news(self, turn: Turn, migration: LiveMigration) -> None:
        """What the script has found and brought meanwhile."""
        news = migration.news()
        self._course.found += [replace(one, text=turn.named(one.text)) for one in news.findings]
        self._course.commands.of_script(turn.number, news)

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
        return self._check_arrival(end) if isinstance(end, Arrival) else self._check_setback(end)

    def _check_setback(self, setback: Setback) -> Findings:
        """A guest that could not leave has to be unharmed."""
        course = self._course
        review = GuestReview(None, None)
        with self._events.step("check"):
            if setback.guest_runs:
                turn, migration = setback.turn, setback.migration
                with self._watched(turn, migration, "source") as watch:
                    if setback.as_it_was_to:
                        self._use_where_it_is(setback)
                    review = self._ask_guest(turn, migration, "source")
                if watch.words is not None and review.lost is None:
                    self._note_death(turn, GuestLost(watch.words))
        scenario = self._ready.plan.resolved.scenario
        return replace(
            Findings.of_no_arrival(scenario.expect, review),
            moves=tuple(course.moves),
            found=tuple(course.found),
            unexercised=tuple(course.unexercised),
            stayed=StayedPut(setback.ended) if setback.as_it_was_to and setback.guest_runs else None,
            outcome=course.outcomes[-1] if course.outcomes else None,
            passes=self._passes(),
            convergence=course.convergence,
            throttling=course.throttling,
            free_memory=self._free_memory(review),
            qemu_memory=QemuMemory(tuple(course.qemu_memory), tuple(course.qemu_files)),
            commands=course.commands,
            looks=tuple(course.looks),
            free_blocks=course.meter.free_blocks,
            file=course.file,
        )

    def _use_where_it_is(self, setback: Setback) -> None:
        """A guest that was not to leave has its devices and its pages as if nothing had been."""
        turn, migration = setback.turn, setback.migration
        guest, host = self._ready.guest, turn.hosts[0]
        self._course.looks = guest.look_at_devices_left(host, migration.monitor("source"), self._events)
        self._course.found += [finding for look in self._course.looks for finding in look.findings]
        bad = migration.verify_owned(Deadline(SCRIPT_SECONDS, "the script's own pages"))
        if bad:
            text = turn.named(f"the guest found {bad} of the script's pages with wrong content")
            self._course.found.append(Finding("guest-pages", "guest", text, bad))
        self._course.reports.arrived()
        self._run_commands("after")

    def _check_arrival(self, arrival: Arrival) -> Findings:
        course, switch_over = self._course, arrival.switch_over
        with self._events.step("check"):
            lost = arrival.lost
            review = self._review(arrival) if lost is None else GuestReview(None, lost)
        course.note_unreached(arrival.turn, arrival.migration)
        return Findings(
            evidence=arrival.evidence,
            memory=arrival.memory,
            statistics=switch_over.statistics,
            counters=switch_over.counters or {},
            completed_at=switch_over.completed_at,
            held_seconds=switch_over.holds.seconds,
            guest=review,
            moves=tuple(course.moves),
            found=tuple(course.found),
            unexercised=tuple(course.unexercised),
            outcome=course.outcomes[-1] if course.outcomes else None,
            passes=self._passes(),
            convergence=course.convergence,
            throttling=course.throttling,
            free_memory=self._free_memory(review),
            qemu_memory=QemuMemory(tuple(course.qemu_memory), tuple(course.qemu_files)),
            commands=course.commands,
            cost=switch_over.cost,
            postcopy=switch_over.postcopy,
            looks=tuple(course.looks),
            free_blocks=course.meter.free_blocks,
            file=course.file,
        )

    def _ask_free(self) -> int | None:
        """Asked only where the scenario expects something of it."""
        if self._ready.plan.resolved.scenario.expect.guest_free_min is None:
            return None
        deadline = Deadline(GOES_ON_SECONDS, "the guest's free memory")
        free = self._ready.guest.control.call("stats", deadline=deadline).get("mem_free")
        return free if isinstance(free, int) else None

    def _passes(self) -> int:
        """Passes of the last migration: QEMU numbers them, and begins anew with each migration."""
        passes = [event.data for event in self._events.history() if event.kind == "MIGRATION_PASS"]
        last = 0
        for data in (event.get("data") for event in passes):
            number = data.get("pass") if isinstance(data, Mapping) else None
            last = number if isinstance(number, int) else last
        return last

    def _free_memory(self, review: GuestReview) -> FreeMemory | None:
        """What the guest's kernel had free before the first migration, and has in the end."""
        before = self._course.free_before
        after = review.answers.counters.get("mem_free") if review.answers is not None else None
        return FreeMemory(before, after) if before is not None and isinstance(after, int) else None

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
        self._note_file(turn, migration)
        self._note_throttle(turn, migration, moved=isinstance(end, SwitchOver))
        if isinstance(end, SwitchOver):
            # One that was given up may not have been told yet.
            self._note_modes(turn, migration)
        self._take_news(turn, migration)
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
        self._note_outcome(turn, migration, outcome)
        if outcome.source.end is not None:
            return False
        control = self._ready.guest.control
        control.rebind(turn.hosts[0].name)
        if turn.paused:
            return True
        if not outcome.source.runs:
            return False
        if turn.suspended:
            self._wake_up(turn, migration.monitor("source"), turn.hosts[0].name)
        deadline = Deadline(GOES_ON_SECONDS, "the guest's answer after a migration given up")
        try:
            control.call("ping", deadline=deadline)
        except GuestLost as error:
            self._note_death(turn, error)
            return False
        history = self._events.history()
        memory, files = own_memory(history), own_files(history)
        if memory is not None and files is not None:
            self._course.qemu_memory.append(memory)
            self._course.qemu_files.append(files)
            self._events.emit("qemu-memory", move=turn.number, own=memory, files=files)
        return True

    def _note_file(self, turn: Turn, migration: LiveMigration) -> None:
        if migration.file is not None:
            self._course.file = migration.file
            found = migration.file_findings
            self._course.found += [replace(one, text=turn.named(one.text)) for one in found]
            if migration.file.written_meanwhile == 0:
                text = "the guest wrote to no page while it was saved"
                self._course.unexercised.append(turn.named(text))

    def _note_throttle(self, turn: Turn, migration: LiveMigration, *, moved: bool) -> None:
        """What is wrong with how QEMU slowed the guest down, and whether it has."""
        looks, scenario = migration.throttle, self._ready.plan.resolved.scenario
        self._course.found += [replace(one, text=turn.named(one.text)) for one in throttle_findings(looks)]
        self._course.throttling = Throttling(most_percent(looks))
        # One that is given up may have been so before it came to that.
        words = not_slowed(looks, migration.throttles, wanted=scenario.expect.throttled) if moved else None
        if words is not None:
            self._course.unexercised.append(turn.named(words))

    def _note_modes(self, turn: Turn, migration: LiveMigration) -> None:
        """Whether each QEMU has on what it was told."""
        resolved = self._ready.plan.resolved.scenario
        how = resolved.migration_of(turn.number)
        modes = Modes.of(how, ignore_shared=resolved.guest.shared is not None)
        actions = [action for entry in self._entries(turn.number) for action in entry.do]
        if how.to != "host" or any(isinstance(one, Qmp) and one.sets_modes for one in actions):
            return
        asked = ModesAsked(modes.asked_capabilities(), modes.all_parameters()).without(LIMITS)
        # Of the destination's QEMU libvirt sets what concerns it, and no more.
        sides = ("source", "destination") if modes.direct else ("source",)
        for side, said in migration.modes.items():
            if side in sides:
                found = modes_findings(asked, side, said.capabilities, said.parameters)
                self._course.found += [replace(one, text=turn.named(one.text)) for one in found]

    def _left_stopped(self, turn: Turn) -> bool:
        """Whether the script has left the guest stopped."""
        actions = [action for entry in self._entries(turn.number) for action in entry.do]
        last = next((one for one in reversed(actions) if isinstance(one, Stop | Cont)), None)
        return isinstance(last, Stop)

    def _note_outcome(self, turn: Turn, migration: LiveMigration, outcome: MigrationOutcome) -> None:
        self._course.outcomes.append(outcome)
        if outcome.switched and outcome.moved and outcome.source.switched is None:
            self._course.unexercised.append(turn.named(NOT_SWITCHED))
        self._course.moves[-1] = self._course.moves[-1].with_outcome(outcome)
        locks = lock_findings(migration.locks(), outcome, migration.copies)
        found = [*outcome_findings(outcome), *locks]
        self._course.found += [replace(finding, text=turn.named(finding.text)) for finding in found]

    def _note_death(self, turn: Turn, error: GuestLost) -> None:
        text = f"the guest, whose memory was right, did not go on: {error.message}"
        self._course.found.append(Finding("guest-died", "guest", turn.named(text)))

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

    def _on_the_way(self, arrival: Arrival) -> Arrival:
        """The guest has arrived, and is about to move on; one that dies of its arrival is lost."""
        turn, migration = arrival.turn, arrival.migration
        try:
            with self._watched(turn, migration, "destination") as watch:
                self._look_in_passing(arrival)
        except GuestLost as error:
            if migration.killed_from_outside("destination"):
                raise
            self._note_death(turn, error)
            return replace(arrival, lost=error)
        if watch.words is None:
            return arrival
        lost = GuestLost(watch.words)
        self._note_death(turn, lost)
        return replace(arrival, lost=lost)

    @contextlib.contextmanager
    def _watched(
        self, turn: Turn, migration: LiveMigration, side: Literal["source", "destination"]
    ) -> Iterator[DeathWatch]:
        """A guest that dies on ``side`` meanwhile is lost at once, and not when a deadline passes."""
        host = turn.hosts[0 if side == "source" else 1].name

        def silence() -> str | None:
            with contextlib.suppress(MachineryError):
                registers = migration.monitor(side).execute(
                    "human-monitor-command", {"command-line": "info registers -a"}
                )
                if halted_for_good(str(registers)):
                    return "it is silent: each of its processors is halted with interrupts off"
            return None

        control = self._ready.guest.control
        with DeathWatch(self._events, control, host=host, side=side, silence=silence) as watch:
            yield watch

    def _look_in_passing(self, arrival: Arrival) -> None:
        if arrival.evidence.stream is not None:
            forget_stream(arrival.evidence.stream)
        course, turn, migration = self._course, arrival.turn, arrival.migration
        if arrival.memory.verdict == "inconclusive":
            course.unexercised.append(turn.named(arrival.memory.judgement.reason))
        control = self._ready.guest.control
        if turn.stays:
            self._ready.guest.is_on(turn.hosts[1])
            self._note_outcome(turn, migration, migration.outcome(moved=True, stands_still=True))
            course.note_unreached(turn, migration)
            return
        self._resume(arrival)
        migration.resumed(Deadline(SCRIPT_SECONDS, "the rest of the script"))
        self._take_news(turn, migration)
        course.note_unreached(turn, migration)
        course.found += self._look_at_devices(arrival)
        bad = migration.verify_owned(Deadline(SCRIPT_SECONDS, "the script's own pages"))
        if turn.move.check:
            bad += check_guest(control, self._events)
        if bad:
            text = turn.named(f"the guest found {bad} of its own pages with wrong content")
            course.found.append(Finding("guest-verify", "guest", text, bad))

    def _look_at_devices(self, arrival: Arrival) -> list[Finding]:
        guest, monitor = self._ready.guest, arrival.switch_over.monitor
        looks = guest.look_at_devices(arrival.turn.hosts[1], monitor, self._events)
        self._course.looks = looks
        return [finding for look in looks for finding in look.findings]

    def _review(self, arrival: Arrival) -> GuestReview:
        """The guest goes on, and is asked; one that shows to die meanwhile has died, whatever it answers."""
        with self._watched(arrival.turn, arrival.migration, "destination") as watch:
            review = self._review_watched(arrival)
        if watch.words is not None and review.lost is None and arrival.memory.verdict != "fail":
            self._note_death(arrival.turn, GuestLost(watch.words))
        return review

    def _review_watched(self, arrival: Arrival) -> GuestReview:
        """One whose memory is wrong may hang for good, and adds nothing to its verdict."""
        turn, migration = arrival.turn, arrival.migration
        wrong = arrival.memory.verdict == "fail"
        side = "destination"
        work: Work | None = None
        try:
            self._resume(arrival)
            work = self._course.meter.end()
            patience = WRONG_GUEST_SECONDS if wrong else SCRIPT_SECONDS
            migration.resumed(Deadline(patience, "the rest of the script"))
            self._take_news(turn, migration)
            self._course.found += self._look_at_devices(arrival)
            bad = migration.verify_owned(Deadline(patience, "the script's own pages"))
            if bad:
                text = turn.named(f"the guest found {bad} of the script's pages with wrong content")
                self._course.found.append(Finding("guest-pages", "guest", text, bad))
            self._course.reports.arrived()
            if not wrong:
                self._run_commands("after")
        except MachineryError as error:
            return self._lost(turn, migration, side, error, wrong=wrong, work=work)
        return self._ask_guest(turn, migration, side, wrong=wrong, work=work)

    def _resume(self, arrival: Arrival) -> None:
        """The guest goes on; who of the two QEMUs runs it is looked at, whatever comes of that."""
        turn, control = arrival.turn, self._ready.guest.control
        try:
            self._ready.guest.is_on(turn.hosts[1])
            monitor, name = arrival.switch_over.monitor, turn.hosts[1].name

            def wake() -> None:
                self._wake_up(turn, monitor, name)

            goes_on = wake if turn.suspended else None
            resume(arrival.switch_over.domain, control, name, self._events, goes_on)
        finally:
            self._note_outcome(turn, arrival.migration, arrival.migration.outcome(moved=True))

    def _wake_up(self, turn: Turn, monitor: Monitor, host: str) -> None:
        if (finding := wake_up(monitor, self._events, host)) is not None:
            self._course.found.append(replace(finding, text=turn.named(finding.text)))

    def _ask_guest(
        self,
        turn: Turn,
        migration: LiveMigration,
        side: str,
        *,
        wrong: bool = False,
        work: Work | None = None,
    ) -> GuestReview:
        """The guest's own checks; it runs on ``side``."""
        resolved, since = self._ready.plan.resolved, self._course.last_message
        seconds = WRONG_GUEST_SECONDS if wrong else CHECK_SECONDS
        try:
            answers = check(self._ready.guest.control, resolved, since, self._events, seconds=seconds)
            facts: tuple[object, ...] = tuple(self._course.reports.end())
            if side == "destination":
                facts = (*facts, *migration.vcpus(Deadline(seconds, "the guest's vCPUs")))
        except MachineryError as error:
            return self._lost(turn, migration, side, error, wrong=wrong, work=work)
        return GuestReview(answers, None, work, facts)

    def _lost(
        self,
        turn: Turn,
        migration: LiveMigration,
        side: str,
        error: MachineryError,
        *,
        wrong: bool,
        work: Work | None,
    ) -> GuestReview:
        """A guest that is lost on ``side``.

        One with wrong memory may well die of it, or lose its mind and talk nonsense: that
        is the verdict, not its end.  One whose memory is right has died of something else.
        """
        gone = error if isinstance(error, GuestLost) else None
        if isinstance(error, HostLost) or (gone is None and not wrong):
            raise error
        if not wrong and migration.killed_from_outside(side):
            raise error
        if not wrong and gone is not None:
            self._note_death(turn, gone)
        return GuestReview(None, gone or GuestLost(error.message), work)


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
