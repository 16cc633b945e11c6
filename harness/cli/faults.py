# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage faults``: deliberate faults, and how many of them are caught."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.cluster import ClusterTls, Workers, worker_options
from harness.cli.options import HistoryName, Json, WarmUnlessTold, app, print_json

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
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, metavar="N", help="So many runs at a time.")
    ] = 1,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="State and run folders; a campaign there is resumed.")
    ] = Path("campaign"),
    history: HistoryName = None,
    warm: WarmUnlessTold = None,
    workers: Workers = None,
    tls: ClusterTls = None,
    json: Json = False,
) -> None:
    """Run each fault against the scenario that must catch it, and each scenario without any.

    Exit status: 0 all caught; 1 a fault was missed, or a scenario fails without any;
    3 a run ended without a verdict.
    """
    from harness.faults.campaign import summarise_campaign
    from harness.faults.conduct import conduct
    from harness.history.campaign import campaign_batch
    from harness.history.record import keep_batch
    from harness.history.store import open_for_writing
    from harness.suite.build import build_for_campaign

    elsewhere = worker_options(workers, tls)
    began, started = datetime.now(UTC), time.monotonic()
    with open_for_writing(history) as store:
        status, report = conduct(
            only or [],
            build_for_campaign,
            sample=sample,
            clean=clean,
            nested=nested,
            warm=warm is not False,
            jobs=jobs,
            out=out,
            options=elsewhere,
        )
        if store is not None:
            command = shlex.join(["freepage", *sys.argv[1:]])
            found = campaign_batch(report, began, time.monotonic() - started, status, command)
            keep_batch(store, found.batch, found.runs)
    if json:
        print_json(report.document())
    else:
        typer.echo("\n".join(summarise_campaign(report)))
    raise typer.Exit(status)


@faults.command("mutate")
def faults_mutate(
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draw: the same mutants again.")] = 1,
    count: Annotated[int, typer.Option(min=1, max=100000, metavar="N", help="So many mutants.")] = 50,
    functions: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only functions, or files, of that name; or FILE:PATTERN."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this mutant; repeatable.")
    ] = None,
    suite: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The scenarios that each mutant is run against.")
    ] = "battery",
    jobs: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="So many mutants at a time.")] = 1,
    timeout: Annotated[float, typer.Option(min=10, metavar="SECONDS", help="End a longer run.")] = 300,
    again: Annotated[bool, typer.Option("--again", help="Run once more what has survived.")] = False,
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Show the mutants; run nothing.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="What came of each run; a search there is resumed.")
    ] = Path("mutants"),
    json: Json = False,
) -> None:
    """Change one line of QEMU at a time, and run scenarios until one notices.

    Exit status: 0 each mutant was caught, or is known to change nothing; 1 one was not.
    """
    from harness.mutants.command import MutationOrder, mutate

    order = MutationOrder(
        seed=seed,
        count=count,
        functions=tuple(functions or ()),
        suite=suite,
        jobs=jobs,
        timeout=timeout,
        out=out,
        again=again,
        only=tuple(only or ()),
        draw_only=draw_only,
    )
    status, report = mutate(order)
    if json:
        print_json(report.document())
    else:
        typer.echo("\n".join(report.lines(every=draw_only)))
    raise typer.Exit(status)
