# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run has found out, for its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import GuestLost
from harness.migration.statistics import MigrationStatistics
from harness.run.commands import CommandLog
from harness.verdict.case import JudgeInput
from harness.verdict.judge import judge_memory

if TYPE_CHECKING:
    from harness.evidence.gather import Evidence
    from harness.evidence.guest_checks import Answers
    from harness.evidence.switch_over import PostcopyMove
    from harness.report.costs import Cost, Work
    from harness.report.move import MoveEnd
    from harness.run.arrival import DeviceLook
    from harness.run.saved.state_file import FileFacts
    from harness.scenario.expectations import Expect
    from harness.verdict.facts import StayedPut
    from harness.verdict.judge import Finding, GuestChecks, MemoryJudgement
    from harness.verdict.outcome import MigrationOutcome
    from harness.verdict.rules.expected_outcome import Convergence, FreeMemory
    from harness.verdict.rules.growth import QemuMemory
    from harness.verdict.throttle import Throttling


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a run found out; the report is made of it."""

    #: None: the migration that was to be judged came to no switch-over.
    evidence: Evidence | None
    #: The verdict over the memory, to be completed with the rest.
    memory: MemoryJudgement
    statistics: MigrationStatistics | None
    counters: Mapping[str, object]
    #: Seconds since the stream began: migration completed, held in the device's holds.
    completed_at: float | None
    held_seconds: float
    guest: GuestReview
    #: How each of the migrations ended.
    moves: tuple[MoveEnd, ...] = ()
    #: What was found around the migration that is judged, and what did not come about.
    found: tuple[Finding, ...] = ()
    unexercised: tuple[str, ...] = ()
    #: The last migration was not to complete, and has not.
    stayed: StayedPut | None = None
    #: How the last of the migrations ended, by both QEMUs.
    outcome: MigrationOutcome | None = None
    #: Whether it came to its switch-over.
    convergence: Convergence | None = None
    #: How it slowed the guest down.
    throttling: Throttling | None = None
    #: Passes over memory of the last migration.
    passes: int = 0
    #: The guest's free memory, before the first migration and in the end.
    free_memory: FreeMemory | None = None
    #: What the source's QEMU had of its own after migrations that were given up.
    qemu_memory: QemuMemory | None = None
    #: The run's commands, and what they brought.
    commands: CommandLog = field(default_factory=CommandLog)
    cost: Cost | None = None
    #: The last migration's switch to postcopy; None: it was not switched.
    postcopy: PostcopyMove | None = None
    #: How each of the scenario's devices was after the last migration.
    looks: tuple[DeviceLook, ...] = ()
    #: Free blocks by order just before the migration.
    free_blocks: list[int] | None = None
    #: The last file through which the guest went.
    file: FileFacts | None = None

    @classmethod
    def of_no_arrival(cls, expect: Expect, guest: GuestReview) -> Findings:
        """Of a run whose guest has not come to another host: nothing of its memory is to be judged."""
        return cls(
            evidence=None,
            memory=judge_memory(JudgeInput(arm="off", blocks=(), expect=expect)),
            statistics=None,
            counters={},
            completed_at=None,
            held_seconds=0.0,
            guest=guest,
        )


@dataclass(frozen=True, slots=True)
class GuestReview:
    """What the guest found after it was resumed on its new host."""

    answers: Answers | None
    #: Why its own checks were not made.
    lost: GuestLost | None
    work: Work | None = None
    #: What its workload's report means, for the verdict.
    facts: tuple[object, ...] = ()

    @property
    def checks(self) -> GuestChecks | None:
        """What the judge needs of its answers."""
        return self.answers.checks if self.answers is not None else None
