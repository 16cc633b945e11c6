# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the runs: each a ``freepage run`` of its own, as many at a time as there is room for.

One thread: it starts processes, waits for their ends and their time limits, and tells the sinks.  A run
has the death signal of this process, so that none outlives it, however it ends.
"""

from __future__ import annotations

import contextlib
import select
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, InputError, MachineryError
from harness.events import patience
from harness.report.finished import FinishedRun, LastWords, RunOutcome, RunSink, outcome_of
from harness.report.gravity import INTERRUPTED
from harness.report.result import Result
from harness.run.matrix import said_last
from harness.run_process import RunProcess, start_run
from harness.suite.expand import SuiteRun
from harness.suite.schedule import Schedule

#: A run that is asked to end has so many seconds for it.
ENDING_SECONDS: Final = 30.0
_MS: Final = 1000
#: poll() takes no number of any size.
_LONGEST_WAIT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where the files of one run are: its run folder, its scenario, and what its command says."""

    folder: Path
    scenario: Path
    log: Path


@dataclass(eq=False)
class _Running:
    """A run's command while it lasts."""

    run: SuiteRun
    place: RunPlace
    process: RunProcess
    descriptor: int
    began: datetime
    started: float
    ends: float
    #: Why it was told to end; empty: it was not.
    told: str = ""
    killed: bool = field(default=False)


def never(run: FinishedRun) -> bool:  # noqa: ARG001 - of any
    """All are run."""
    return False


def is_wrong(run: FinishedRun) -> bool:
    """It is not as it should be."""
    return not run.right


def fails(run: FinishedRun) -> bool:
    """It is not as it should be, and says something: an inconclusive run does not."""
    return not run.right and run.outcome != "inconclusive"


class SuiteRunner:
    """Use :meth:`run` once.

    ``places``: where the files of a run are.  ``stops``: begin no further run after one of which it says so.
    """

    def __init__(
        self,
        schedule: Schedule[SuiteRun],
        places: Callable[[SuiteRun], RunPlace],
        sink: RunSink,
        *,
        stops: Callable[[FinishedRun], bool] = never,
    ) -> None:
        self._schedule = schedule
        self._places = places
        self._sink = sink
        self._stops = stops
        self._running: dict[int, _Running] = {}
        self._poll = select.poll()
        self._stopped = False
        self.interrupted = False
        #: The runs that have ended, in that order; also where :meth:`run` raises.
        self.done: list[FinishedRun] = []

    @property
    def waiting(self) -> list[SuiteRun]:
        """What has not been begun."""
        return self._schedule.waiting

    def run(self, more: Iterator[Sequence[SuiteRun]] | None = None) -> list[FinishedRun]:
        """Make the runs of the schedule; whenever it has none left, those that ``more`` gives.

        An interruption ends what runs, and is told by :attr:`interrupted`.
        """
        try:
            while True:
                self._start_what_fits(more)
                if not self._running:
                    return self.done
                self._wait()
        except KeyboardInterrupt:
            self.interrupted = True
            self._end_all()
            return self.done
        except BaseException:
            # A sink may be what has failed.
            self._sink = LastWords(self._sink)
            self._end_all()
            raise

    def _start_what_fits(self, more: Iterator[Sequence[SuiteRun]] | None) -> None:
        while not self._stopped:
            if more is not None and not self._schedule.waiting:
                self._schedule.add((run, run.needs) for run in next(more, ()))
            run = self._schedule.take()
            if run is None:
                return
            self._start(run)

    def _start(self, run: SuiteRun) -> None:
        place = self._places(run)
        place.scenario.write_text(run.scenario.to_yaml(), encoding="utf-8")
        words: list[str | Path] = ["run", place.scenario, "--out", place.folder, *run.tools.options()]
        if run.nested:
            words.append("--nested")
        began, started = datetime.now(UTC), time.monotonic()
        place.log.unlink(missing_ok=True)
        # In a session of its own: Ctrl-C comes to us, and each run is told once.
        process = start_run(words, stdout=place.log, stderr=place.log)
        descriptor = process.sentinel
        ends = started + patience(run.timeout)
        self._running[descriptor] = _Running(run, place, process, descriptor, began, started, ends)
        self._poll.register(descriptor, select.POLLIN)
        self._sink.started(run.name, place.folder)

    def _wait(self) -> None:
        """Until a run has ended, or one has to be ended."""
        next_end = min(one.ends for one in self._running.values())
        left = min(max(0.0, next_end - time.monotonic()), _LONGEST_WAIT)
        ended = self._poll.poll(left * _MS)
        if not ended:
            self._end_late_ones()
        for descriptor, _ in ended:
            self._finish(self._running[descriptor])

    def _end_late_ones(self) -> None:
        for one in self._running.values():
            if one.ends > time.monotonic():
                continue
            if one.told:
                one.killed = True
                one.process.kill()
                one.ends = float("inf")
            else:
                self._tell(one, f"it took over {one.run.timeout:.0f} s, and was ended")

    def _tell(self, one: _Running, why: str) -> None:
        one.told = why
        one.ends = time.monotonic() + patience(ENDING_SECONDS)
        one.process.terminate()

    def _end_all(self) -> None:
        """Ask all runs to end, and wait until they have."""
        self._stopped = True
        for one in self._running.values():
            if not one.told:
                self._tell(one, "interrupted")
        while self._running:
            # A second Ctrl-C must not leave anything behind either.
            with contextlib.suppress(KeyboardInterrupt):
                self._wait()

    def _finish(self, one: _Running) -> None:
        seconds = time.monotonic() - one.started
        self._poll.unregister(one.descriptor)
        status = one.process.wait()
        assert status is not None
        del self._running[one.descriptor]
        self._schedule.done(one.run)
        finished = finished_run(one.run, one.place, status, one.told, one.began, seconds)
        self.done.append(finished)
        if self._stops(finished):
            self._stopped = True
        self._sink.finished(finished)


def finished_run(
    run: SuiteRun, place: RunPlace, status: int, told: str, began: datetime, seconds: float
) -> FinishedRun:
    """The record of a run, from its command's exit status and what it left.

    ``told``: why it was told to end; empty: it ended by itself.
    """
    result, reason = None, ""
    try:
        result = result_in(place.folder)
    except (InputError, OSError) as error:
        reason = str(error)
    if told and status != ExitCode.PASS:
        status = INTERRUPTED if told == "interrupted" else ExitCode.ERROR
    elif status < 0:
        reason = f"it was killed by signal {signal.Signals(-status).name}"
        status = ExitCode.ERROR
    elif status == ExitCode.PASS and result is None:
        reason, status = reason or "it ended as if all were well, and left no result", ExitCode.ERROR
    outcome = outcome_of(status, result)
    if told and outcome == "error":
        reason = told
    if result is not None and outcome != "error":
        reason = result.reason
    return FinishedRun(
        name=run.name,
        scenario=run.scenario.name,
        dimensions=dict(run.dimensions),
        repeat=run.repeat,
        outcome=outcome,
        exit_status=status,
        reason=reason or _said(place.log),
        rule=_rule(result),
        seed=result.seed if result is not None else run.scenario.seed,
        accelerator=result.accelerator if result is not None else "",
        began=began,
        seconds=round(seconds, 3),
        folder=str(place.folder) if place.folder.exists() else None,
        replay=result.replay if result is not None else replay_words(run, place),
        result=result,
    )


def unmade_run(run: SuiteRun, outcome: RunOutcome, why: str) -> FinishedRun:
    """The record of a run that was not begun: ``skipped``, or an ``error`` of what it needs."""
    return FinishedRun(
        name=run.name,
        scenario=run.scenario.name,
        dimensions=dict(run.dimensions),
        repeat=run.repeat,
        outcome=outcome,
        exit_status=ExitCode.PASS if outcome == "skipped" else ExitCode.ERROR,
        reason=why,
        seed=run.scenario.seed,
        began=datetime.now(UTC),
        seconds=0.0,
        folder=None,
    )


def result_in(folder: Path) -> Result | None:
    """The result of a run that lies in a folder; None: it reached none.

    Raises :class:`InputError` for one that cannot be read.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    return Result.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))


def _rule(result: Result | None) -> str | None:
    if result is None or not result.findings:
        return None
    # One that the scenario is written to show comes first.
    rules = [found.rule for found in result.findings]
    return result.expected_rule if result.expected_rule in rules else rules[0]


def replay_words(run: SuiteRun, place: RunPlace) -> str:
    """The command that makes a run again, from what it has kept or was given."""
    kept = place.folder / "scenario.yaml"
    words = ["freepage", "run", str(kept if kept.exists() else place.scenario), *run.tools.options()]
    return shlex.join([*words, "--nested"] if run.nested else words)


def _said(log: Path) -> str:
    try:
        return said_last(log.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise MachineryError(f"{log}: {error.strerror}") from error
