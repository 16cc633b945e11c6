# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the pages: one for each run, and one for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from harness.errors import MachineryError
from harness.report.finished import FinishedRun, RunSink, SuiteReport
from harness.report.places import demand_writable
from harness.report.run_page import RUN_PAGE, run_page
from harness.report.templates_of import render
from harness.units import human_size


class PageFile(RunSink):
    """Writes a page for each run into its folder, and one for all in the end.

    Raises :class:`InputError` at once for a file that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        demand_writable(path, "--html")
        self._path = path

    def finished(self, run: FinishedRun) -> None:
        """Write the run's page, if it has a folder."""
        if run.folder is not None and Path(run.folder).is_dir():
            write_page(Path(run.folder) / RUN_PAGE, run_page(Path(run.folder), run.result, run))

    def ended(self, report: SuiteReport) -> None:
        """Write the page of all; of a single run that was not in a suite, its own."""
        alone = report.runs[0] if len(report.runs) == 1 and not report.suite and not report.not_run else None
        if alone is not None and alone.folder is not None:
            write_page(self._path, run_page(Path(alone.folder), alone.result, alone))
        else:
            write_page(self._path, suite_page(report, self._path.absolute().parent))


def write_page(path: Path, text: str) -> None:
    """Write it; an old one is replaced.  Raises :class:`MachineryError` for a disk that is full."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineryError(f"{path}: {error.strerror}") from error


def suite_page(report: SuiteReport, place: Path) -> str:
    """The page of a suite.  ``place``: the folder in which it will be, from which runs are linked."""
    runs = sorted(report.runs, key=lambda run: (run.right, run.outcome == "skipped"))
    longest = max((run.seconds for run in report.runs), default=0.0) or 1.0
    scenarios = list(dict.fromkeys(run.scenario for run in report.runs))
    return render(
        "suite.html.j2",
        report=report,
        counts=report.counts,
        runs=runs,
        links={run.name: link for run in runs if (link := _link(run, place))},
        bars={run.name: round(100 * run.seconds / longest, 2) for run in runs},
        grid=[(name, [run for run in report.runs if run.scenario == name]) for name in scenarios],
        human=human_size,
    )


def _link(run: FinishedRun, place: Path) -> str:
    if run.folder is None or not (Path(run.folder) / RUN_PAGE).is_file():
        return ""
    return quote(os.path.relpath(Path(run.folder) / RUN_PAGE, place))
