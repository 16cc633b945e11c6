# SPDX-License-Identifier: GPL-2.0-or-later
"""Options for reports of runs, and what several runs print; ``freepage report``: of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness.cli.options import app

if TYPE_CHECKING:
    from harness.report.finished import RunSink, SuiteReport

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, max=256, metavar="N", help="So many runs at a time, at most."),
]
Junit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write a report as JUnit's XML, for a CI.")
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a report as a page; each run folder gets one, too."),
]


def report_sinks(junit: Path | None, html: Path | None) -> list[RunSink]:
    """Who is told of the runs beside the terminal; GitHub, too, in a job of its own.

    Raises :class:`InputError` for a file that cannot be written.
    """
    from harness.report.github import github_sinks

    sinks = github_sinks()
    if junit is not None:
        from harness.report.junit import JunitFile

        sinks.append(JunitFile(junit))
    if html is not None:
        from harness.report.pages import PageFile

        sinks.append(PageFile(html))
    return sinks


def show_report(report: SuiteReport, *, as_json: bool) -> NoReturn:
    """Print what came of several runs, and end with their exit status."""
    from harness.suite.show import table_lines

    if as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        for line in table_lines(report):
            typer.echo(line)
    raise typer.Exit(report.exit_status)


@app.command("report")
def report_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Run folders, or folders of suites.")
    ],
    junit: Junit = None,
    html: Html = None,
) -> None:
    """Write report.html into folders of runs and suites; with --html and --junit, one report of all suites.

    That is how the shards of one suite become one report.
    """
    from harness.report.folders import report_on

    for path in report_on(folders, junit=junit, html=html):
        typer.echo(str(path))
