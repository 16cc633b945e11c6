# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration of a run ended, as ``result.json`` has it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from harness.report.modes import SideModes
from harness.report.part import Part
from harness.report.throttle import Throttle
from harness.scenario.expectations import VerdictWord
from harness.verdict.outcome import MigrationOutcome, QemuAccount


class QemuEnd(Part):
    """What one QEMU said and did during a migration."""

    statuses: list[str]
    """Its statuses in order, by its own events; the last one is its last word."""
    ran: list[tuple[float, float | None]]
    """When it ran the guest: seconds since the migration was prepared; null: it still runs it."""
    end: str | None
    """How its process ended: a signal or an exit status; null: it goes on, or nobody can tell."""
    core: str | None = None
    """Of one that crashed: where its core file is, or why there is none."""
    reports: list[str]
    """What a sanitizer, or an assertion that failed, has printed."""

    @classmethod
    def of(cls, account: QemuAccount, zero: float) -> QemuEnd:
        """Build this from the account; ``zero`` is the instant from which it counts."""
        return cls(
            statuses=list(account.statuses),
            ran=[
                (round(begin - zero, 4), None if end is None else round(end - zero, 4))
                for begin, end in account.running
            ],
            end=None if account.end is None else str(account.end),
            core=account.core,
            reports=list(account.reports),
        )


class MoveEnd(Part):
    """How one of the run's migrations ended."""

    ended: str
    """completed, cancelled or failed: the last word of the source's QEMU. unfinished: it says none."""
    reason: str
    """The verdict's, in one sentence; of one that was given up, the words that the user is given."""
    verdict: VerdictWord | None = None
    """Over the memory; null: it was given up."""
    skipped: int = 0
    """Pages left behind."""
    requests: int = 0
    """Requests that left for the guest."""
    modes: Mapping[str, SideModes] = Field(default={})
    """What was really on, by side (source, destination): each QEMU's own word while the migration was under
    way. A side that was never asked is not there."""
    throttle: Throttle | None = None
    """How the source's QEMU slowed the guest down (auto-converge, dirty-limit). null: it did not, and was not
    asked to."""
    source: QemuEnd | None = None
    """The QEMU that the guest was to leave."""
    destination: QemuEnd | None = None
    """The QEMU that it was to go to."""

    def with_outcome(self, outcome: MigrationOutcome) -> MoveEnd:
        """The same, with how it ended by both QEMUs."""
        zero = min((side.running[0][0] for side in outcome.sides if side.running), default=0.0)
        source, destination = (QemuEnd.of(side, zero) for side in outcome.sides)
        return self.model_copy(update={"ended": outcome.ending, "source": source, "destination": destination})
