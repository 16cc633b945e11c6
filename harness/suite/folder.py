# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a suite, and the last one of the same suite.

suite.yaml      the suite's file, as it was
plan.json       which runs were to be made
runs.jsonl      a line for each run that has ended, in whichever way, at once
suite.json      the report, when all have ended
NNN-NAME/       the run folders
scenarios/      what each of them was given
logs/           what each of them said
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from harness.errors import InputError, MachineryError
from harness.report.finished import SUITE_RUNS, FinishedRun, RunSink, SuiteReport, read_finished
from harness.report.folder import demand_new
from harness.report.part import Part
from harness.report.result import first_problem
from harness.suite.expand import SuiteRun
from harness.suite.runner import RunPlace

PLAN: Final = "plan.json"
REPORT: Final = "suite.json"
_LONGEST_NAME: Final = 80


@dataclass
class SuiteFolder(RunSink):
    """Where all of a suite lies; as a sink it keeps what it is told."""

    path: Path
    _numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def create(cls, suite: str, text: str, out: Path | None) -> SuiteFolder:
        """Make the folder; without ``out`` a new one under ``./runs``.  ``text``: of the suite's file.

        Raises :class:`InputError` if it exists, or cannot be made.
        """
        demand_new(out)
        path = (out or _fresh(Path("runs"), suite)).absolute()
        try:
            path.mkdir(parents=True)
            for name in ("scenarios", "logs"):
                (path / name).mkdir()
            (path / "suite.yaml").write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot make the suite's folder {path}: {error.strerror}", hint="give --out DIR"
            ) from error
        return cls(path)

    def write_plan(self, plan: SuitePlan) -> None:
        """Say what is to be run, before it is."""
        (self.path / PLAN).write_text(plan.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def place(self, run: SuiteRun) -> RunPlace:
        """Where the files of a run are; the same each time."""
        number = self._numbers.setdefault(run.name, len(self._numbers) + 1)
        stem = f"{number:03d}-{plain_name(run.name)}"
        return RunPlace(
            self.path / stem, self.path / "scenarios" / f"{stem}.yaml", self.path / "logs" / f"{stem}.log"
        )

    def finished(self, run: FinishedRun) -> None:
        """Write it down."""
        try:
            with (self.path / SUITE_RUNS).open("a", encoding="utf-8") as file:
                file.write(run.model_dump_json() + "\n")
        except OSError as error:
            raise MachineryError(f"{self.path / SUITE_RUNS}: {error.strerror}") from error

    def ended(self, report: SuiteReport) -> None:
        """Write the report."""
        try:
            (self.path / REPORT).write_text(report.to_json(), encoding="utf-8")
        except OSError as error:
            raise MachineryError(f"{self.path / REPORT}: {error.strerror}") from error


def plain_name(name: str) -> str:
    """A run's name as the name of a file."""
    plain = re.sub(r"[^A-Za-z0-9.=_-]+", "-", name).strip("-")
    return plain[:_LONGEST_NAME]


def _fresh(parent: Path, suite: str) -> Path:
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-suite-{suite}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 1000))
    return next(place for name in names if not (place := parent / name).exists())


def last_folder(suite: str, parent: Path = Path("runs")) -> Path:
    """The newest folder of this suite below ``parent``.  Raises :class:`InputError` if there is none."""
    found = sorted(place.parent for place in parent.glob(f"*-suite-{suite}*/{PLAN}"))
    mine = [place for place in found if re.fullmatch(rf"\d+-\d+-suite-{re.escape(suite)}(-\d+)?", place.name)]
    if not mine:
        raise InputError(
            f"the suite {suite} has not been run here: there is no folder of it in {parent.absolute()}",
            hint="--last DIR names one that is elsewhere",
        )
    return mine[-1]


class SuitePlan(Part):
    """What was to be run in a suite's folder."""

    suite: str
    """The suite's name."""
    seed: int
    """The suite's seed."""
    runs: list[str]
    """The names of the runs."""


def read_plan(folder: Path) -> SuitePlan:
    """What was to be run there.  Raises :class:`InputError` for what is no folder of a suite."""
    path = folder / PLAN
    try:
        return SuitePlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder} is not the folder of a suite: {PLAN}: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path} is not the plan of a suite: {first_problem(error)}") from error


def right_in(folder: Path) -> set[str]:
    """The names of the runs that went as they should in a suite's folder.

    Raises :class:`InputError` for lines that are no runs.
    """
    path = folder / SUITE_RUNS
    right: set[str] = set()
    for run in read_finished(path) if path.exists() else ():
        (right.add if run.right else right.discard)(run.name)
    return right
