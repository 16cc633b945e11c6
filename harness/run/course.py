# SPDX-License-Identifier: GPL-2.0-or-later
"""The course of a run: which migration comes when, and what has come of those before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.evidence.work_meter import WorkMeter
from harness.evidence.workload_reports import WorkloadReports
from harness.run.commands import CommandLog
from harness.verdict.finding import Finding

if TYPE_CHECKING:
    from harness.errors import GuestLost
    from harness.evidence.gather import Evidence
    from harness.evidence.switch_over import SwitchOver
    from harness.hosts.interface import Host
    from harness.report.move import MoveEnd
    from harness.run.announcing import Announcing
    from harness.run.arrival import DeviceLook
    from harness.run.live_migration import LiveMigration
    from harness.run.saved.state_file import FileFacts
    from harness.scenario.migration import Move
    from harness.verdict.judge import MemoryJudgement
    from harness.verdict.outcome import MigrationOutcome
    from harness.verdict.rules.expected_outcome import Convergence
    from harness.verdict.throttle import Throttling


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the scenario's moves: which of them, and between which hosts it goes."""

    number: int
    of: int
    move: Move
    hosts: tuple[Host, Host]

    @property
    def last(self) -> bool:
        """Whether no other comes after it."""
        return self.number == self.of

    @property
    def paused(self) -> bool:
        """Whether the guest stands still through it."""
        return self.move.guest in ("paused", "stays-paused")

    @property
    def suspended(self) -> bool:
        """Whether it has suspended itself to its memory."""
        return self.move.guest == "suspended"

    @property
    def stays(self) -> bool:
        """Whether it moves on without having run on its new host."""
        return self.move.guest == "stays-paused"

    def named(self, text: str) -> str:
        """With the move's number in front, where there are several."""
        return text if self.of == 1 else f"move {self.number}: {text}"


@dataclass(slots=True)
class Course:
    """What has come of the run so far."""

    meter: WorkMeter
    reports: WorkloadReports
    #: The last message of the guest's kernel from before.
    last_message: int
    moves: list[MoveEnd] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    unexercised: list[str] = field(default_factory=list)
    #: The guest's free memory before the first migration, in bytes; None: nobody asked.
    free_before: int | None = None
    #: Its commands, in the guest and by QMP, and what they brought.
    commands: CommandLog = field(default_factory=CommandLog)
    #: Whether the last migration came to its switch-over; None: there was none yet, or it was given up.
    convergence: Convergence | None = None
    #: How the last migration slowed the guest down.
    throttling: Throttling | None = None
    #: How the scenario's devices were after the last migration that completed.
    looks: list[DeviceLook] = field(default_factory=list)
    #: How each migration ended, by both QEMUs.
    outcomes: list[MigrationOutcome] = field(default_factory=list)
    #: Bytes that the source's QEMU has of its own, after each migration that was given up.
    qemu_memory: list[int] = field(default_factory=list)
    #: The files that it has open then.
    qemu_files: list[int] = field(default_factory=list)
    #: The last file through which the guest went.
    file: FileFacts | None = None

    def note_unreached(self, turn: Turn, migration: LiveMigration) -> None:
        """What the script has not come to, or too late."""
        for entry in migration.unreached:
            which = f" {entry.number}" if entry.number is not None else ""
            self.unexercised.append(turn.named(f"the script came to no {entry.at}{which}"))
        self.unexercised += [turn.named(words) for words in migration.late]


@dataclass(frozen=True, eq=False, slots=True)
class Arrival:
    """The last migration, or the one that went wrong: its memory judged, its guest still paused."""

    turn: Turn
    migration: LiveMigration
    switch_over: SwitchOver
    evidence: Evidence
    memory: MemoryJudgement
    #: It was lost before it could move on.
    lost: GuestLost | None = None
    #: What its network hears of it.
    announcing: Announcing | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Setback:
    """The last migration did not complete: the guest is where it was, if it still is."""

    turn: Turn
    migration: LiveMigration
    #: Whether the guest runs on, by the source's own word.
    guest_runs: bool
    #: How it ended.
    ended: str
    #: Whether the scenario has ended the QEMU that had it.
    guest_ended: bool = False

    @property
    def as_it_was_to(self) -> bool:
        """Whether that is what the scenario wants of it."""
        return self.turn.move.ends == self.ended
