# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run has found out, for its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import GuestLost
from harness.migration.statistics import MigrationStatistics

if TYPE_CHECKING:
    from harness.evidence.gather import Evidence
    from harness.evidence.guest_checks import Answers
    from harness.report.costs import Cost, Work
    from harness.report.result import MoveEnd
    from harness.verdict.judge import Finding, GuestChecks, MemoryJudgement


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a run found out; the report is made of it."""

    evidence: Evidence
    #: The verdict over the memory, to be completed with the rest.
    memory: MemoryJudgement
    statistics: MigrationStatistics
    counters: Mapping[str, object]
    #: Seconds since the stream began: migration completed, held in the device's holds.
    completed_at: float
    held_seconds: float
    guest: GuestReview
    #: How each of the migrations ended.
    moves: tuple[MoveEnd, ...] = ()
    #: What was found around the migration that is judged, and what did not come about.
    found: tuple[Finding, ...] = ()
    unexercised: tuple[str, ...] = ()
    cost: Cost | None = None
    #: Free blocks by order just before the migration.
    free_blocks: list[int] | None = None


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
