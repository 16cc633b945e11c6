# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that has ended, as a record; a suite of them; and who is told.

Whoever makes several runs (a suite, ``freepage run A B``) hands each of them to every :class:`RunSink`
the moment that it has ended: the terminal, the files of reports, a store of results::

    class Counting(RunSink):
        def finished(self, run: FinishedRun) -> None:
            self.seen += 1

A sink is told in the main thread, one thing after the other.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field, ValidationError

from harness.errors import ExitCode, InputError
from harness.report.part import Part
from harness.report.result import Result, first_problem

RunOutcome: TypeAlias = Literal["pass", "expected", "fail", "inconclusive", "refused", "error", "skipped"]

#: In the folder of a suite: a line for each run that has ended.
SUITE_RUNS: Final = "runs.jsonl"
#: Outcomes that nobody has to look at.
RIGHT: Final = ("pass", "expected", "skipped")


class FinishedRun(Part):
    """One run that has ended, in whichever way, or that this machine cannot make."""

    name: str
    """The run's name in its suite: the scenario, and what was chosen for it."""
    scenario: str
    """The scenario's name."""
    dimensions: dict[str, str] = Field(default={})
    """What was chosen for this run in each dimension of the suite."""
    repeat: int = 1
    """Which of several equal runs, from 1."""
    outcome: RunOutcome
    """pass; expected: it failed, as its scenario is written to; fail; inconclusive; refused: this machine
    or these QEMUs cannot do it (exit status 2); error: there is no verdict; skipped: it was not to be made
    on a machine that lacks something."""
    exit_status: int
    """The run's own exit status; of a skipped one 0."""
    reason: str
    """One sentence; where there is no verdict, the run's last words."""
    rule: str | None = None
    """The rule by which it failed, the first of several."""
    seed: int | None
    """null: it came to no seed."""
    accelerator: str = ""
    """kvm, tcg, or the chain of a nested machine; empty where there is no result."""
    began: datetime
    """When its command was started."""
    seconds: float
    """How long that command took; nothing was built in it."""
    folder: str | None
    """The run folder, absolute; null: none was made."""
    replay: str = ""
    """The command that makes the run again."""
    worker: str = ""
    """The worker of a cluster that has made it; empty: this machine."""
    result: Result | None = None
    """Its result.json; null: it reached none."""

    @property
    def right(self) -> bool:
        """Whether it went as it should."""
        return self.outcome in RIGHT


class SuiteReport(Part):
    """All runs of a suite that have ended, as one document."""

    version: Literal[1] = 1
    """The version of this format."""
    suite: str
    """The suite's name; empty for scenarios that were named on the command line."""
    command: str
    """The command that makes all of it again."""
    seed: int | None = None
    """The suite's seed, from which those of its runs come; null: each run has its own."""
    shard: str | None = None
    """I/N: which part of the suite this is."""
    began: datetime
    """When the first run was started."""
    seconds: float
    """From the first run's start to the last one's end."""
    exit_status: int
    """The gravest of all."""
    interrupted: bool = False
    """Whether somebody has ended it."""
    host: dict[str, str] = Field(default={})
    """What it was run on."""
    runs: list[FinishedRun]
    """In the order in which they have ended."""
    not_run: list[str] = Field(default=[])
    """The names of runs that were not begun any more."""

    @property
    def counts(self) -> Mapping[RunOutcome, int]:
        """How many runs ended in which way."""
        return Counter(run.outcome for run in self.runs)

    @property
    def wrong(self) -> list[FinishedRun]:
        """The runs that did not go as they should."""
        return [run for run in self.runs if not run.right]

    def to_json(self) -> str:
        """The document, indented, with a newline at its end."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> SuiteReport:
        """Read a document back.  Raises :class:`InputError` if it is none of this version."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(f"{path} is not the report of a suite: {first_problem(error)}") from error


def read_finished(path: Path) -> list[FinishedRun]:
    """The runs in a suite's ``runs.jsonl``, in the order in which they ended.

    Of a suite that was killed the last line may not be whole: it is left out.
    Raises :class:`InputError` for other lines that are no runs.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    runs = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            runs.append(FinishedRun.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: not a run of a suite: {first_problem(error)}") from error
    return runs


def outcome_of(exit_status: int, result: Result | None) -> RunOutcome:
    """How a run ended, by its command's exit status and what it left."""
    if exit_status == ExitCode.INPUT:
        return "refused"
    if result is None:
        return "error"
    match exit_status:
        case ExitCode.PASS:
            return "pass" if result.verdict == "pass" else "expected"
        case ExitCode.FAIL:
            return "fail"
        case ExitCode.INCONCLUSIVE:
            return "inconclusive"
    return "error"


class RunSink:
    """Is told of runs.  What a sink does not care about it need not define.

    A sink that fails raises; it never makes a run look other than it was.
    """

    def begin(self, suite: str, total: int) -> None:
        """A suite begins: its name, and how many runs it has; 0: until one fails."""

    def started(self, name: str, folder: Path) -> None:
        """A run was started; ``folder``: where its run folder will be."""

    def finished(self, run: FinishedRun) -> None:
        """A run has ended."""

    def ended(self, report: SuiteReport) -> None:
        """No further run will be made."""


class LastWords(RunSink):
    """A sink after an error, its own maybe: it is told what is left to tell, and may not fail again."""

    def __init__(self, sink: RunSink) -> None:
        self._sink = sink

    def finished(self, run: FinishedRun) -> None:
        """Hand it on."""
        with contextlib.suppress(Exception):
            self._sink.finished(run)

    def ended(self, report: SuiteReport) -> None:
        """Hand it on."""
        with contextlib.suppress(Exception):
            self._sink.ended(report)


class Sinks(RunSink):
    """Several sinks as one, told in this order.

    One that fails is told nothing more; the others are told all the same, before its error is raised.
    """

    def __init__(self, sinks: Iterable[RunSink]) -> None:
        self._sinks = list(sinks)

    def begin(self, suite: str, total: int) -> None:
        """Hand it on."""
        self._tell(lambda sink: sink.begin(suite, total))

    def started(self, name: str, folder: Path) -> None:
        """Hand it on."""
        self._tell(lambda sink: sink.started(name, folder))

    def finished(self, run: FinishedRun) -> None:
        """Hand it on."""
        self._tell(lambda sink: sink.finished(run))

    def ended(self, report: SuiteReport) -> None:
        """Hand it on."""
        self._tell(lambda sink: sink.ended(report))

    def _tell(self, what: Callable[[RunSink], None]) -> None:
        errors: list[Exception] = []
        for sink in tuple(self._sinks):
            try:
                what(sink)
            except Exception as error:
                self._sinks.remove(sink)
                errors.append(error)
        if errors:
            raise errors[0]
