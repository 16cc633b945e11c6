# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage suite``: many scenarios, in many ways, as one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.cluster import ARTEFACTS, Artefacts, ClusterTls, Workers, cluster_engine
from harness.cli.complete import suite_names
from harness.cli.options import HistoryName, Json, QemuOption, WarmUnlessTold, app, print_json
from harness.cli.report import Html, Jobs, Junit, report_sinks, show_report
from harness.errors import InputError

suites = typer.Typer(no_args_is_help=True, help="Many scenarios, in many ways, as one.")
app.add_typer(suites, name="suite")


@suites.command("list")
def suite_list(json: Json = False) -> None:
    """List the suites that ship: how many runs each has, and what for."""
    from harness.suite.load import list_suites
    from harness.suite.matrix import Matrix

    found = [(one.suite, Matrix(one).count()) for one in list_suites()]
    if json:
        print_json([{"name": one.name, "summary": one.summary, "runs": runs} for one, runs in found])
        return
    width = max(len(one.name) for one, _ in found)
    for one, runs in found:
        typer.echo(f"{one.name:{width}}  {runs:>4} runs  {one.summary}")


@suites.command("show")
def suite_show(
    suite: Annotated[str, typer.Argument(metavar="NAME|FILE", autocompletion=suite_names)], json: Json = False
) -> None:
    """List the runs of a suite, in order, and what each takes of the machine."""
    from harness.suite.expand import Expansion
    from harness.suite.load import load_suite
    from harness.units import human_size

    runs = Expansion(load_suite(suite)).runs()
    if json:
        print_json(
            [
                {
                    "name": run.name,
                    "scenario": run.scenario.name,
                    "dimensions": dict(run.dimensions),
                    "repeat": repeat,
                    "memory": run.needs.memory,
                    "cpus": run.needs.cpus,
                    "timeout": run.timeout,
                    "optional": run.optional,
                }
                for run, repeat in runs
            ]
        )
        return
    width = max(len(run.name) for run, _ in runs)
    for run, repeat in runs:
        times = f"  {repeat} times" if repeat > 1 else ""
        optional = "  optional" if run.optional else ""
        typer.echo(
            f"{run.name:{width}}  {human_size(run.needs.memory)}, {run.needs.cpus} CPUs{times}{optional}"
        )


@suites.command("schema")
def suite_schema_command() -> None:
    """Print the JSON Schema of a suite's file."""
    from harness.suite.load import suite_schema

    print_json(suite_schema())


@suites.command("run")
def suite_run(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="See 'suite list'; default: smoke.", autocompletion=suite_names
        ),
    ] = "smoke",
    jobs: Jobs = None,
    repeat: Annotated[
        int | None,
        typer.Option(min=1, max=10000, metavar="N", help="So many times, in place of the suite's."),
    ] = None,
    until_failure: Annotated[
        bool, typer.Option("--until-failure", help="Again and again, with other seeds, until one fails.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N: for N machines, or jobs of a CI.")
    ] = None,
    rerun_failed: Annotated[
        bool, typer.Option("--rerun-failed", help="Only what did not go well, or was not run, the last time.")
    ] = False,
    last: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of that time; default: the newest in runs.")
    ] = None,
    stop: Annotated[
        bool,
        typer.Option(
            "--exit-first/--keep-going", "-x", help="Begin nothing more after the first that fails."
        ),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=1.0, metavar="SECONDS", help="A run that takes longer is ended.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, metavar="N", help="The seeds of all runs come from it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The suite's folder; must not exist yet.")
    ] = None,
    qemu: QemuOption = None,
    junit: Junit = None,
    html: Html = None,
    history: HistoryName = None,
    warm: WarmUnlessTold = None,
    workers: Workers = None,
    tls: ClusterTls = None,
    artefacts: Artefacts = ARTEFACTS,
    json: Json = False,
) -> None:
    """Build what a suite needs, run as many at a time as fit, and say in one table what came of it.

    Exit status: the gravest of all runs'. A scenario that fails as it is written to is as it should be.
    """
    from harness.history.sink import HistorySink
    from harness.history.store import open_for_writing
    from harness.suite.command import SuiteOrder, parse_shard, run_suite

    if last is not None and not rerun_failed:
        raise InputError("--last says which runs --rerun-failed is about, which is not given")
    if timeout is not None and not math.isfinite(timeout):
        raise InputError(f"--timeout {timeout}: expected seconds")
    if until_failure and (rerun_failed or repeat is not None):
        raise InputError("--until-failure goes together with neither --repeat nor --rerun-failed")
    order = SuiteOrder(
        suite,
        jobs=jobs,
        repeat=repeat,
        until_failure=until_failure,
        shard=parse_shard(shard) if shard is not None else None,
        rerun_failed=rerun_failed,
        last=last,
        stop_at_first=stop,
        timeout=timeout,
        seed=seed,
        out=out,
        qemu=qemu,
        warm=warm,
    )
    with open_for_writing(history) as store, cluster_engine(workers, tls, artefacts) as engine:
        sinks = report_sinks(junit, html) + ([HistorySink(store)] if store is not None else [])
        report = run_suite(order, sinks, engine)
    show_report(report, as_json=json)
