# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage faults``: deliberate faults, and how many of them are caught."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, app, print_json

faults = typer.Typer(no_args_is_help=True, help="Deliberate faults, and how many of them are caught.")
app.add_typer(faults, name="faults")


@faults.command("list")
def faults_list(json: Json = False) -> None:
    """List the faults: where they are, which scenario must catch them, and how."""
    from harness.faults.catalogue import catalogue

    found = catalogue().faults
    if json:
        print_json([fault.model_dump(mode="json") for fault in found])
        return
    width = max(len(fault.id) for fault in found)
    for fault in found:
        marks = "" if fault.accelerator == "any" else f" ({fault.accelerator} only)"
        typer.echo(f"{fault.id:{width}}  {fault.where:6}  {fault.scenario:18}  {fault.what}{marks}")


@faults.command("run")
def faults_run(
    only: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this fault; repeatable.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Only the sample that ci/test runs.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Run each fault's scenario, and not the fault: all must be right.")
    ] = False,
    nested: Annotated[
        bool, typer.Option("--nested", help="Run those that only KVM can show, inside an emulated machine.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="So many runs at a time.")] = 1,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="State and run folders; a campaign there is resumed.")
    ] = Path("campaign"),
    json: Json = False,
) -> None:
    """Run each fault against the scenario that must catch it, and each scenario without any.

    Exit status: 0 all caught; 1 a fault was missed, or a scenario fails without any;
    3 a run ended without a verdict.
    """
    from harness.faults.conduct import conduct
    from harness.suite.build import build_for_campaign

    status, report, lines = conduct(
        only or [], build_for_campaign, sample=sample, clean=clean, nested=nested, jobs=jobs, out=out
    )
    if json:
        print_json(report)
    else:
        typer.echo("\n".join(lines))
    raise typer.Exit(status)
