# SPDX-License-Identifier: GPL-2.0-or-later
"""When each guest's migrations were under way, and whether all were at the same time.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.events import Event

_ENDS: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class GuestJob:
    """One migration of one guest, by its source's QEMU: seconds of the run's stream.  Open: it has no end."""

    guest: int
    move: int
    began: float
    ended: float | None = None


def jobs_of(events: Iterable[Event]) -> list[GuestJob]:
    """Every migration that became active, out of the run's events, which carry the guest's number."""
    moves: dict[int, int] = {}
    jobs: dict[tuple[int, int], GuestJob] = {}
    for event in events:
        guest, data = event.data.get("guest"), event.data.get("data")
        if not isinstance(guest, int):
            continue
        if event.kind == "step-start" and isinstance(move := event.data.get("move"), int):
            moves[guest] = move
        if event.kind != "MIGRATION" or event.source != "source.qmp" or not isinstance(data, Mapping):
            continue
        at, status = (guest, moves.get(guest, 1)), data.get("status")
        job = jobs.get(at)
        if job is None and status == "active":
            jobs[at] = GuestJob(*at, event.t)
        elif job is not None and job.ended is None and status in _ENDS:
            jobs[at] = GuestJob(*at, job.began, event.t)
    return list(jobs.values())


def common_ms(jobs: Sequence[GuestJob], guests: int, moves: int) -> list[int]:
    """For each move the milliseconds in which the migrations of all guests were under way; 0: never."""
    found = []
    for move in range(1, moves + 1):
        these = [job for job in jobs if job.move == move and job.ended is not None]
        if len(these) < guests:
            found.append(0)
            continue
        span = min(job.ended for job in these if job.ended is not None) - max(job.began for job in these)
        found.append(max(0, round(1000 * span)))
    return found
