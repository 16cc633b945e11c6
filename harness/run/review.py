# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has arrived, or could not leave: it goes on, is asked, and is watched meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import GuestLost, HostLost, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.guest_checks import CHECK_SECONDS, WRONG_GUEST_SECONDS, check, check_guest, resume
from harness.evidence.wire_witness import forget_stream
from harness.guest.death import DeathWatch, halted_for_good
from harness.run.announcing import announces
from harness.run.course import Arrival, Course, Setback, Turn
from harness.run.findings import Findings, GuestReview
from harness.run.notes import CourseNotes
from harness.verdict.facts import StayedPut
from harness.verdict.finding import Finding
from harness.verdict.rules.expected_outcome import FreeMemory
from harness.verdict.rules.growth import QemuMemory

if TYPE_CHECKING:
    from harness.report.costs import Work
    from harness.run.boot import ReadyGuest
    from harness.run.live_migration import LiveMigration

#: What is left of the script once the guest runs on its new host.
SCRIPT_SECONDS: Final = 600.0


class Review:
    """What the guest itself shows; ``course``: what has come of its migrations so far."""

    def __init__(self, ready: ReadyGuest, events: EventStream, course: Course, notes: CourseNotes) -> None:
        self._ready = ready
        self._events = events
        self._course = course
        self._notes = notes

    def check(self, end: Arrival | Setback) -> Findings:
        """Step 9: the guest goes on, and checks itself.  All that the run has found out."""
        return self._check_arrival(end) if isinstance(end, Arrival) else self._check_setback(end)

    def _check_setback(self, setback: Setback) -> Findings:
        """A guest that could not leave has to be unharmed."""
        review = GuestReview(None, None)
        with self._events.step("check"):
            if setback.guest_runs:
                turn, migration = setback.turn, setback.migration
                with self._watched(turn, migration, "source") as watch:
                    if setback.as_it_was_to:
                        self._use_where_it_is(setback)
                    review = self._ask_guest(turn, migration, "source")
                if watch.words is not None and review.lost is None:
                    self._notes.death(turn, GuestLost(watch.words))
        expect = self._ready.plan.resolved.scenario.expect
        as_it_was_to = setback.as_it_was_to and (setback.guest_runs or setback.guest_ended)
        stayed = StayedPut(setback.ended, setback.guest_ended) if as_it_was_to else None
        return self._with_course(replace(Findings.of_no_arrival(expect, review), stayed=stayed))

    def _use_where_it_is(self, setback: Setback) -> None:
        """A guest that was not to leave has its devices and its pages as if nothing had been."""
        turn, migration = setback.turn, setback.migration
        guest, host = self._ready.guest, turn.hosts[0]
        self._course.looks = guest.look_at_devices_left(host, migration.monitor("source"), self._events)
        self._course.found += [finding for look in self._course.looks for finding in look.findings]
        self._verify_owned(turn, migration, SCRIPT_SECONDS)
        self._course.reports.arrived()
        self._notes.run_commands("after")

    def _verify_owned(self, turn: Turn, migration: LiveMigration, patience: float) -> None:
        """Pages that the script has taken; the guest has ``patience`` seconds to look at them."""
        bad = migration.verify_owned(Deadline(patience, "the script's own pages"))
        if bad:
            text = turn.named(f"the guest found {bad} of the script's pages with wrong content")
            self._course.found.append(Finding("guest-pages", "guest", text, bad))

    def _check_arrival(self, arrival: Arrival) -> Findings:
        switch_over = arrival.switch_over
        with self._events.step("check"):
            lost = arrival.lost
            review = self._review(arrival) if lost is None else GuestReview(None, lost)
        self._course.note_unreached(arrival.turn, arrival.migration)
        arrived = Findings(
            evidence=arrival.evidence,
            memory=arrival.memory,
            statistics=switch_over.statistics,
            counters=switch_over.counters or {},
            completed_at=switch_over.completed_at,
            held_seconds=switch_over.holds.seconds,
            guest=review,
            cost=switch_over.cost,
            postcopy=switch_over.postcopy,
        )
        return self._with_course(arrived)

    def _with_course(self, findings: Findings) -> Findings:
        """What has come of all the migrations, beside what the last one ended with."""
        course = self._course
        return replace(
            findings,
            moves=tuple(course.moves),
            found=tuple(course.found),
            unexercised=tuple(course.unexercised),
            outcome=course.outcomes[-1] if course.outcomes else None,
            passes=self._passes(),
            convergence=course.convergence,
            throttling=course.throttling,
            free_memory=self._free_memory(findings.guest),
            qemu_memory=QemuMemory(tuple(course.qemu_memory), tuple(course.qemu_files)),
            commands=course.commands,
            looks=tuple(course.looks),
            free_blocks=course.meter.free_blocks,
            file=course.file,
        )

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

    def on_the_way(self, arrival: Arrival) -> Arrival:
        """The guest has arrived, and is about to move on; one that dies of its arrival is lost."""
        turn, migration = arrival.turn, arrival.migration
        try:
            with self._watched(turn, migration, "destination") as watch:
                self._look_in_passing(arrival)
        except GuestLost as error:
            if migration.killed_from_outside("destination"):
                raise
            self._notes.death(turn, error)
            return replace(arrival, lost=error)
        if watch.words is None:
            return arrival
        lost = GuestLost(watch.words)
        self._notes.death(turn, lost)
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
            self._notes.outcome(turn, migration, migration.outcome(moved=True, stands_still=True))
            course.note_unreached(turn, migration)
            return
        self._resume(arrival)
        self._notes.announcement(arrival)
        migration.resumed(Deadline(SCRIPT_SECONDS, "the rest of the script"))
        self._notes.take_news(turn, migration)
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
        how = self._ready.plan.resolved.scenario.migration_of(arrival.turn.number)
        announced = how.to == "host" and announces(how)
        looks = guest.look_at_devices(arrival.turn.hosts[1], monitor, self._events, announced=announced)
        self._course.looks = looks
        return [finding for look in looks for finding in look.findings]

    def _review(self, arrival: Arrival) -> GuestReview:
        """The guest goes on, and is asked; one that shows to die meanwhile has died, whatever it answers."""
        with self._watched(arrival.turn, arrival.migration, "destination") as watch:
            review = self._review_watched(arrival)
        if watch.words is not None and review.lost is None and arrival.memory.verdict != "fail":
            self._notes.death(arrival.turn, GuestLost(watch.words))
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
            if not wrong:
                self._notes.announcement(arrival)
            patience = WRONG_GUEST_SECONDS if wrong else SCRIPT_SECONDS
            migration.resumed(Deadline(patience, "the rest of the script"))
            self._notes.take_news(turn, migration)
            self._course.found += self._look_at_devices(arrival)
            self._verify_owned(turn, migration, patience)
            self._course.reports.arrived()
            if not wrong:
                self._notes.run_commands("after")
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
                self._notes.wake_up(turn, monitor, name)

            goes_on = wake if turn.suspended else None
            resume(arrival.switch_over.domain, control, name, self._events, goes_on)
        finally:
            self._notes.outcome(turn, arrival.migration, arrival.migration.outcome(moved=True))

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
                facts = (*facts, *migration.vcpus(Deadline(seconds, "the guest's vCPUs")), *migration.msrs())
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
            self._notes.death(turn, gone)
        return GuestReview(None, gone or GuestLost(error.message), work)
