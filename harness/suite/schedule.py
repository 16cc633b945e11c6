# SPDX-License-Identifier: GPL-2.0-or-later
"""Which run is next: the first that fits into what the running ones leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from harness.suite.needs import Resources

_Job = TypeVar("_Job")

#: So many may go past one that waits for room; then it is waited for, or it would wait for ever.
MOST_OVERTAKEN: Final = 8


class Schedule(Generic[_Job]):
    """Jobs in their order, each with what it needs.

    ``jobs``: the most at a time; None: as many as fit.  One that is larger than the whole machine is
    started when nothing else runs: it can say best what it lacks.
    """

    def __init__(self, machine: Resources, jobs: int | None = None) -> None:
        self._machine = machine
        self._free = machine
        self._jobs = jobs
        self._waiting: list[tuple[_Job, Resources]] = []
        self._running: dict[_Job, Resources] = {}
        self._overtaken = 0

    def add(self, jobs: Iterable[tuple[_Job, Resources]]) -> None:
        """More jobs, behind those that wait."""
        self._waiting += [(job, needed.within(self._machine)) for job, needed in jobs]

    @property
    def waiting(self) -> list[_Job]:
        """What has not been started."""
        return [job for job, _ in self._waiting]

    def take(self) -> _Job | None:
        """A job that can be started now, which counts as running from here on; None: none can."""
        if self._jobs is not None and len(self._running) >= self._jobs:
            return None
        for place, (job, needed) in enumerate(self._waiting):
            if self._free.holds(needed) or not self._running:
                if place:
                    self._overtaken += 1
                else:
                    self._overtaken = 0
                del self._waiting[place]
                self._running[job] = needed
                self._free = self._free.without(needed)
                return job
            if self._overtaken >= MOST_OVERTAKEN:
                return None
        return None

    def done(self, job: _Job) -> None:
        """It runs no more: what it had is free."""
        del self._running[job]
        self._free = self._machine
        for needed in self._running.values():
            self._free = self._free.without(needed)
