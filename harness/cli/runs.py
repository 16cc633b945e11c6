# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage runs``: the run folders that there are."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.complete import run_names
from harness.cli.options import Json, app, print_json
from harness.errors import ExitCode, InputError

run_folders_commands = typer.Typer(
    no_args_is_help=True, help="The run folders: list them, open one, read its logs, prune."
)
app.add_typer(run_folders_commands, name="runs")

_VERDICTS = ("pass", "fail", "inconclusive", "none", "unreadable")

RunsFolder = Annotated[Path, typer.Option("--in", metavar="DIR", help="Where the run folders are.")]
OneRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run folder, its name, or how that begins; or last.", autocompletion=run_names
    ),
]


@run_folders_commands.command("list")
def runs_list(folder: RunsFolder = Path("runs"), json: Json = False) -> None:
    """List the runs, the newest last: when, how each ended, and why."""
    from harness.report.runs import known_runs, run_name
    from harness.units import human_size

    found = known_runs(folder)
    if json:
        print_json(
            [
                {
                    "folder": str(run.path),
                    "ended": round(run.ended),
                    "verdict": run.verdict,
                    "scenario": run.scenario,
                    "arm": run.arm,
                    "reason": run.reason,
                    "bytes": run.size,
                }
                for run in found
            ]
        )
        return
    for run in found:
        when = f"{datetime.fromtimestamp(run.ended):%Y-%m-%d %H:%M}"
        size, name = human_size(run.size), run_name(run.path, folder)
        typer.echo(f"{run.verdict:12}  {when}  {size:>10}  {name}  {run.reason}")
    typer.echo(f"{len(found)} runs in {folder}")


@run_folders_commands.command("open")
def runs_open(run: OneRun, folder: RunsFolder = Path("runs")) -> None:
    """Show a run in the browser: its page, else its map; without a desktop, say where they are."""
    from harness.report.runs import find_run

    place = find_run(run, folder)
    page = next((place / name for name in ("report.html", "map.svg") if (place / name).exists()), place)
    if shutil.which("xdg-open") is not None:
        typer.launch(str(page.absolute()))
    typer.echo(str(page))


@run_folders_commands.command("logs")
def runs_logs(
    run: OneRun,
    name: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="One of them, to be printed whole.")
    ] = None,
    folder: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """List the files of a run, or print one of them."""
    from harness.report.runs import files_of, find_run, log_of

    place = find_run(run, folder)
    if name is not None:
        if json:
            raise InputError("--json lists files: it has nothing to say of one that is printed")
        with log_of(place, name).open("rb") as reading:
            shutil.copyfileobj(reading, sys.stdout.buffer)
        return
    found = list(files_of(place))
    if json:
        print_json([{"file": file, "bytes": size} for file, size in found])
        return
    for file, size in found:
        typer.echo(f"{size:>12}  {file}")


@run_folders_commands.command("prune")
def runs_prune(
    folder: RunsFolder = Path("runs"),
    days: Annotated[float, typer.Option(metavar="DAYS", min=0.0, help="Only what is older.")] = 30.0,
    keep: Annotated[int, typer.Option(metavar="N", min=0, help="The newest N stay.")] = 20,
    verdict: Annotated[
        list[str] | None,
        typer.Option(metavar="VERDICT", help="Only runs that ended so (pass, none, ...); repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Take away old run folders.  One that may be going on stays."""
    from harness.report.runs import known_runs, prune_runs, run_name
    from harness.units import human_size

    wrong = next((one for one in verdict or () if one not in _VERDICTS), None)
    if wrong is not None:
        raise InputError(f"--verdict {wrong}: expected one of {', '.join(_VERDICTS)}")
    gone = []
    for run in prune_runs(
        known_runs(folder), days=days, keep=keep, verdicts=verdict or _VERDICTS, dry_run=dry_run
    ):
        gone.append(run)
        typer.echo(f"{run.verdict:12}  {human_size(run.size):>10}  {run_name(run.path, folder)}")
    total = human_size(sum(run.size for run in gone))
    typer.echo(f"{len(gone)} runs, {total}: {'these would go' if dry_run else 'gone'}")
    raise typer.Exit(ExitCode.PASS)
