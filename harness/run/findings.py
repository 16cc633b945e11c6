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
    from harness.report.measures import Cost, Work
    from harness.scenario.model import VerdictWord
    from harness.verdict.judge import Finding, GuestChecks


@dataclass(frozen=True, slots=True)
class LegEnd:
    """How one of a run's migrations ended."""

    ended: str
    #: The reason that the user is given for one that was given up, or the verdict's.
    reason: str
    verdict: VerdictWord | None = None
    skipped: int = 0
    requests: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a run found out; the report is made of it."""

    evidence: Evidence
    statistics: MigrationStatistics
    counters: Mapping[str, object]
    #: Seconds since the stream began: migration completed, held in the device's holds.
    completed_at: float
    held_seconds: float
    answers: Answers | None
    #: Why the guest's own checks were not made.
    lost: GuestLost | None
    #: How each of the migrations ended.
    legs: tuple[LegEnd, ...] = ()
    #: What was found around the migration that is judged, and what did not come about.
    found: tuple[Finding, ...] = ()
    unexercised: tuple[str, ...] = ()
    cost: Cost | None = None
    work: Work | None = None
    #: Free blocks by order just before the migration.
    free_blocks: list[int] | None = None

    @property
    def checks(self) -> GuestChecks | None:
        """What the judge needs of the guest's answers."""
        return self.answers.checks if self.answers is not None else None
