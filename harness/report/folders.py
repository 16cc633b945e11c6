# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports on folders that are there already: of runs, of suites, and of the shards of one suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.report.finished import FinishedRun, SuiteReport
from harness.report.gravity import worst
from harness.report.junit import JunitFile
from harness.report.pages import PageFile, suite_page, write_page
from harness.report.places import demand_writable
from harness.report.result import Result
from harness.report.run_page import RUN_PAGE, run_page

#: In the folder of a suite (harness/suite/folder.py).
SUITE_REPORT: Final = "suite.json"


def report_on(folders: Sequence[Path], *, junit: Path | None, html: Path | None) -> list[Path]:
    """Write the pages; what was written.

    ``junit`` and ``html``: one report of all suites among the folders.
    Raises :class:`InputError` for what is neither the folder of a run nor one of a suite.
    """
    suites = {folder: suite_in(folder) for folder in folders if (folder / SUITE_REPORT).is_file()}
    runs = [folder for folder in folders if folder not in suites]
    for folder in runs:
        if not (folder / "events.jsonl").is_file():
            raise InputError(
                f"{folder} is neither a run folder nor the folder of a suite that has ended",
                hint="a run folder has an events.jsonl, a suite's folder a suite.json",
            )
    for path, option in ((junit, "--junit"), (html, "--html")):
        if path is not None:
            demand_writable(path, option)
            if not suites:
                raise InputError(f"{option} is for suites, and none of these folders is one of a suite")
    written = [_write_run(folder) for folder in runs]
    for folder, report in suites.items():
        written += [
            _write_run(Path(run.folder), run)
            for run in report.runs
            if run.folder and Path(run.folder).is_dir()
        ]
        write_page(folder / RUN_PAGE, suite_page(report, folder.absolute()))
        written.append(folder / RUN_PAGE)
    if suites:
        merged = merge_reports(list(suites.values()))
        if junit is not None:
            JunitFile(junit).ended(merged)
            written.append(junit)
        if html is not None:
            PageFile(html).ended(merged)
            written.append(html)
    return written


def suite_in(folder: Path) -> SuiteReport:
    """The report of a suite's folder, with its run folders where they are now.

    A shard's may have come from elsewhere.  Raises :class:`InputError` for a folder of no suite.
    """
    report = SuiteReport.read(folder / SUITE_REPORT)
    moved = []
    for run in report.runs:
        here = folder.absolute() / Path(run.folder).name if run.folder else None
        moved.append(run.model_copy(update={"folder": str(here)}) if here and here.is_dir() else run)
    return report.model_copy(update={"runs": moved})


def _write_run(folder: Path, run: FinishedRun | None = None) -> Path:
    path = folder / "result.json"
    result = run.result if run is not None else None
    if result is None and path.is_file():
        result = Result.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
    write_page(folder / RUN_PAGE, run_page(folder, result, run))
    return folder / RUN_PAGE


def merge_reports(reports: Sequence[SuiteReport]) -> SuiteReport:
    """Several parts of one suite as one report.

    Raises :class:`InputError` for parts of different suites, and for a run that two of them have: it
    would count twice.
    """
    if len(reports) == 1:
        return reports[0]
    names = {report.suite for report in reports}
    if len(names) > 1:
        raise InputError(f"these are of different suites: {', '.join(sorted(names))}")
    runs: dict[str, FinishedRun] = {}
    for report in reports:
        for run in report.runs:
            if run.name in runs:
                raise InputError(f"the run {run.name} is in two of these folders, and would count twice")
            runs[run.name] = run
    seeds = {report.seed for report in reports}
    gravest = worst([report.exit_status for report in reports])
    return SuiteReport(
        suite=reports[0].suite,
        command=reports[0].command,
        seed=seeds.pop() if len(seeds) == 1 else None,
        shard=", ".join(report.shard for report in reports if report.shard) or None,
        began=min(report.began for report in reports),
        seconds=max(report.seconds for report in reports),
        exit_status=gravest,
        interrupted=any(report.interrupted for report in reports),
        host={},
        runs=list(runs.values()),
        not_run=[name for report in reports for name in report.not_run],
    )
