# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes of a run's migrations, put down in its course as it becomes known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from harness.events import EventStream
from harness.migration.modes import LIMITS, modes_of_move
from harness.run.course import Arrival, Course, Turn
from harness.run.suspending import wake_up
from harness.scenario.actions.monitor import Qmp
from harness.scenario.script import actions
from harness.verdict.finding import Finding
from harness.verdict.locks import lock_findings
from harness.verdict.modes import ModesAsked, modes_findings
from harness.verdict.outcome import MigrationOutcome, outcome_findings
from harness.verdict.throttle import Throttling, most_percent, not_slowed, throttle_findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.errors import GuestLost
    from harness.migration.qmp import Monitor
    from harness.run.boot import ReadyGuest
    from harness.run.live_migration import LiveMigration
    from harness.scenario.script import Entry

#: What a switch to postcopy comes to that comes too late.
NOT_SWITCHED: Final = "the migration had completed before it was switched to postcopy (postcopy-not-started)"


class CourseNotes:
    """Writes to ``course``; what is found in one of several moves says in which."""

    def __init__(self, ready: ReadyGuest, events: EventStream, course: Course) -> None:
        self._ready = ready
        self._events = events
        self._course = course

    def run_commands(self, when: Literal["before", "after"]) -> None:
        """The commands of the scenario, in the guest as it runs."""
        commands = self._ready.plan.resolved.scenario.guest.commands
        chosen = commands.before if when == "before" else commands.after
        control = self._ready.guest.control
        self._course.found += self._course.commands.run(when, chosen, control, self._events)

    def take_news(self, turn: Turn, migration: LiveMigration) -> None:
        """What the script has found and brought meanwhile."""
        news = migration.news()
        self._found(turn, news.findings)
        self._course.commands.of_script(turn.number, news)

    def file(self, turn: Turn, migration: LiveMigration) -> None:
        """The file through which the guest went, if it did."""
        if migration.file is not None:
            self._course.file = migration.file
            found = migration.file_findings
            self._found(turn, found)
            if migration.file.written_meanwhile == 0:
                text = "the guest wrote to no page while it was saved"
                self._course.unexercised.append(turn.named(text))

    def throttle(self, turn: Turn, migration: LiveMigration, *, moved: bool) -> None:
        """What is wrong with how QEMU slowed the guest down, and whether it has."""
        looks, scenario = migration.throttle, self._ready.plan.resolved.scenario
        self._found(turn, throttle_findings(looks))
        self._course.throttling = Throttling(most_percent(looks))
        # One that is given up may have been so before it came to that.
        words = not_slowed(looks, migration.throttles, wanted=scenario.expect.throttled) if moved else None
        if words is not None:
            self._course.unexercised.append(turn.named(words))

    def modes(self, turn: Turn, migration: LiveMigration, script: Sequence[Entry]) -> None:
        """Whether each QEMU has on what it was told; ``script``: this move's part of it."""
        resolved = self._ready.plan.resolved.scenario
        how = resolved.migration_of(turn.number)
        modes = modes_of_move(resolved, turn.number)
        if how.to != "host" or any(isinstance(one, Qmp) and one.sets_modes for one in actions(script)):
            return
        asked = ModesAsked(modes.asked_capabilities(), modes.all_parameters()).without(LIMITS)
        # Of the destination's QEMU libvirt sets what concerns it, and no more.
        sides = ("source", "destination") if modes.direct else ("source",)
        for side, said in migration.modes.items():
            if side in sides:
                found = modes_findings(asked, side, said.capabilities, said.parameters)
                self._found(turn, found)

    def bitmaps(self, turn: Turn, migration: LiveMigration) -> None:
        """The disks' dirty bitmaps, where they migrate; both sides stand still."""
        found = migration.bitmap_findings()
        self._found(turn, found)

    def machine(self, turn: Turn, migration: LiveMigration) -> None:
        """The machine on both sides, where they are two QEMUs; both stand still."""
        self._found(turn, migration.machine_findings())

    def announcement(self, arrival: Arrival) -> None:
        """Whether the guest's network knows where the guest is, which runs there."""
        if arrival.announcing is not None:
            found = arrival.announcing.findings()
            self._found(arrival.turn, found)

    def outcome(self, turn: Turn, migration: LiveMigration, outcome: MigrationOutcome) -> None:
        """How a migration ended, by both QEMUs, and what is wrong with that."""
        self._course.outcomes.append(outcome)
        if outcome.switched and outcome.moved and outcome.source.switched is None:
            self._course.unexercised.append(turn.named(NOT_SWITCHED))
        self._course.moves[-1] = self._course.moves[-1].with_outcome(outcome)
        locks = lock_findings(migration.locks(), outcome, migration.copies)
        found = [*outcome_findings(outcome), *locks]
        self._found(turn, found)

    def death(self, turn: Turn, error: GuestLost) -> None:
        """A guest that has died, though its memory was right."""
        text = f"the guest, whose memory was right, did not go on: {error.message}"
        self._course.found.append(Finding("guest-died", "guest", turn.named(text)))

    def wake_up(self, turn: Turn, monitor: Monitor, host: str) -> None:
        """A guest that had suspended itself is woken up on ``host``."""
        if (finding := wake_up(monitor, self._events, host)) is not None:
            self._found(turn, [finding])

    def _found(self, turn: Turn, findings: Iterable[Finding]) -> None:
        self._course.found += [replace(one, text=turn.named(one.text)) for one in findings]
