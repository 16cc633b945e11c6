# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports to GitHub Actions: annotations of a job, and its summary.

What a guest says must not become a command of the workflow: all is escaped as
actions/toolkit does (packages/core/src/command.ts), and a summary is Markdown without HTML.
"""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.report.finished import FinishedRun, RunSink, SuiteReport

#: GitHub takes a summary of 1 MiB; a row is some hundred bytes.
_MOST_ROWS: Final = 2000
_LONGEST: Final = 400
_MARKS: Final = {
    "pass": "✅",
    "expected": "✅",
    "skipped": "⏭️",
    "inconclusive": "⚠️",
    "fail": "❌",
    "error": "❌",
    "refused": "❌",
}


def github_sinks(environment: Mapping[str, str] = os.environ) -> list[RunSink]:
    """The sinks for a job of GitHub's; none elsewhere."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    sinks: list[RunSink] = [Annotations(_say)]
    if environment.get("GITHUB_STEP_SUMMARY"):
        sinks.append(JobSummary(Path(environment["GITHUB_STEP_SUMMARY"])))
    return sinks


def _say(line: str) -> None:
    # Not on stdout, which may be a document; GitHub reads both.
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is for whoever reads the job's log


class Annotations(RunSink):
    """One annotation for each run that did not go as it should, at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def finished(self, run: FinishedRun) -> None:
        """Annotate it."""
        if not run.right:
            self._say(annotation(run))


def annotation(run: FinishedRun) -> str:
    """The workflow command for a run."""
    kind = "warning" if run.outcome == "inconclusive" else "error"
    title = f"freepage: {run.outcome}: {run.name}"
    text = [run.reason, f"run folder: {run.folder}" if run.folder else "", f"replay: {run.replay}"]
    return f"::{kind} title={_property(title)}::{_data(chr(10).join(filter(None, text)))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


class JobSummary(RunSink):
    """Appends a table to the summary of the job."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ended(self, report: SuiteReport) -> None:
        """Append it."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(summary_markdown(report))
        except OSError as error:
            raise MachineryError(f"{self._path}: {error.strerror}") from error


def summary_markdown(report: SuiteReport) -> str:
    """The table, what is wrong first."""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in report.counts.items())
    shard = f", shard {report.shard}" if report.shard else ""
    lines = [
        f"## {_cell(report.suite or 'freepage run')}{shard}: exit status {report.exit_status}",
        "",
        f"{len(report.runs)} runs: {counts or 'none'}; {report.seconds:.0f} s. "
        f"Again: {_code(report.command)}",
        "",
    ]
    if report.not_run:
        lines += [f"Not run: {', '.join(map(_cell, report.not_run))}", ""]
    rows = sorted(report.runs, key=lambda run: run.right)
    lines += ["| | run | seconds | seed | why | again |", "|---|---|---:|---|---|---|"]
    lines += [_summary_row(run) for run in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines += ["", f"and {len(rows) - _MOST_ROWS} more, which are in the report"]
    return "\n".join(lines) + "\n\n"


def _summary_row(run: FinishedRun) -> str:
    why = "" if run.outcome == "pass" else f"{run.rule}: {run.reason}" if run.rule else run.reason
    cells: Sequence[str] = (
        f"{_MARKS[run.outcome]} {run.outcome}",
        _cell(run.name),
        f"{run.seconds:.1f}",
        str(run.seed) if run.seed is not None else "",
        _cell(why),
        "" if run.right else _code(run.replay),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text in a cell, of which nothing is Markdown or HTML."""
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    for sign in "\\`*_[]|~":
        text = text.replace(sign, f"\\{sign}")
    return html.escape(text, quote=False)


def _code(text: str) -> str:
    """A command in a cell: HTML, as a vertical bar ends a cell even in a code span."""
    escaped = html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;")
    return f"<code>{escaped}</code>" if escaped else ""
