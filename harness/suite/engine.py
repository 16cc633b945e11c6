# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the runs of a suite are made: on this machine, or, by :mod:`harness.cluster`, on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from harness.events import EventStream
from harness.report.finished import FinishedRun, RunSink
from harness.suite.expand import SuiteRun
from harness.suite.needs import machine_resources
from harness.suite.runner import RunPlace, SuiteRunner
from harness.suite.schedule import Schedule


@dataclass(frozen=True, slots=True)
class RunsWanted:
    """Runs that are to be made, for which all is built.

    ``places``: where the files of a run are.  ``jobs``: the most at a time; None: as many as fit.
    ``stops``: begin no further run after one of which it says so.
    """

    runs: Sequence[SuiteRun]
    places: Callable[[SuiteRun], RunPlace]
    sink: RunSink
    jobs: int | None
    stops: Callable[[FinishedRun], bool]


class RunMaker(Protocol):
    """Makes runs; :meth:`run` is called once."""

    interrupted: bool
    #: The runs that have ended, also where :meth:`run` raises.
    done: list[FinishedRun]

    @property
    def waiting(self) -> list[SuiteRun]:
        """What has not been begun."""

    def run(self, more: Iterator[Sequence[SuiteRun]] | None = None) -> list[FinishedRun]:
        """Make the runs, and those that ``more`` gives; what came of each."""


class Engine(Protocol):
    """Where runs are made: on this machine, or on others (:mod:`harness.cluster`)."""

    @property
    def elsewhere(self) -> bool:
        """Whether other machines make them."""

    def hand_out(self, since: float, events: EventStream) -> None:
        """Give those who run what was built here since then (seconds since 1970)."""

    def runner(self, wanted: RunsWanted) -> RunMaker:
        """Who makes these runs."""


class ThisMachine:
    """Runs are made here."""

    elsewhere: Final = False

    def hand_out(self, since: float, events: EventStream) -> None:
        """Nothing: it is here."""

    def runner(self, wanted: RunsWanted) -> RunMaker:
        """As many at a time as this machine has room for."""
        schedule: Schedule[SuiteRun] = Schedule(machine_resources(), wanted.jobs)
        schedule.add((run, run.needs) for run in wanted.runs)
        return SuiteRunner(schedule, wanted.places, wanted.sink, stops=wanted.stops)
