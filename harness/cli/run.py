# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run`` and ``freepage shell``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.again import MostRuns, PrintCommand, UntilFailure, in_place_of_a_run
from harness.cli.cluster import ARTEFACTS, Artefacts, ClusterTls, Workers, cluster_engine
from harness.cli.complete import scenario_names
from harness.cli.hand import KeepOption, PauseAt, wanted_by_hand
from harness.cli.matrix import QemuMatrix, run_matrix_command
from harness.cli.options import (
    Accel,
    ArmOption,
    DestinationQemu,
    FaultOption,
    Json,
    KernelConfig,
    KernelName,
    MemoryOption,
    Nested,
    QemuOption,
    QemuSourceOption,
    Seed,
    Settings,
    SourceQemu,
    Strict,
    Trace,
    Warm,
    app,
    overrides,
    tools_of,
)
from harness.cli.remote import Destination, SourceOption, SshConfig, remote_overrides
from harness.cli.report import Html, Jobs, Junit, report_sinks, show_report
from harness.errors import InputError


@app.command()
def run(
    scenarios: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENARIO...",
            help="Names (see 'scenario list') or files: one run each.",
            autocompletion=scenario_names,
        ),
    ],
    arm: ArmOption = None,
    accel: Accel = None,
    memory: MemoryOption = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; must not exist yet.")
    ] = None,
    json: Json = False,
    qemu: QemuOption = None,
    source_qemu: SourceQemu = None,
    destination_qemu: DestinationQemu = None,
    qemu_matrix: QemuMatrix = None,
    kernel: KernelName = None,
    kernel_config: KernelConfig = None,
    qemu_source: QemuSourceOption = None,
    strict: Strict = None,
    fault: FaultOption = None,
    trace: Trace = None,
    source: SourceOption = None,
    destination: Destination = None,
    ssh_config: SshConfig = None,
    nested: Nested = False,
    jobs: Jobs = None,
    junit: Junit = None,
    html: Html = None,
    until_failure: UntilFailure = False,
    most: MostRuns = None,
    print_command: PrintCommand = False,
    warm: Warm = False,
    keep: KeepOption = None,
    pause_at: PauseAt = None,
    workers: Workers = None,
    tls: ClusterTls = None,
    artefacts: Artefacts = ARTEFACTS,
) -> None:
    """Migrate a guest between two hosts, and prove or disprove that its memory is right.

    Of several scenarios, --out is the folder of their run folders, and one table, or document, tells of all.
    """
    if qemu_matrix is not None:
        refused = {
            "--qemu": qemu,
            "--source-qemu": source_qemu,
            "--destination-qemu": destination_qemu,
            "--fault": fault,
            "--source": source,
            "--destination": destination,
            "--nested": nested or None,
            "--jobs": jobs,
            "--junit": junit,
            "--html": html,
            "--until-failure": until_failure or None,
            "--max": most,
            "--print-command": print_command or None,
            "--warm": warm or None,
            "--keep": keep,
            "--pause-at": pause_at or None,
            "--workers": workers,
            "--kernel-config": kernel_config,
        }
        beside = [name for name, value in refused.items() if value is not None]
        if beside:
            raise InputError(f"{beside[0]} has nothing to say beside --qemu-matrix")
        options = {
            "arm": arm,
            "accel": accel,
            "memory": memory,
            "seed": seed,
            "trace": trace,
            "kernel": kernel,
            "qemu_source": qemu_source,
        }
        status = run_matrix_command(scenarios, qemu_matrix, options, strict, settings, out=out, as_json=json)
        raise typer.Exit(status)
    changes = [
        *remote_overrides(source, destination, ssh_config),
        *overrides(arm, accel, memory, seed, strict, settings, trace, kernel_config),
    ]
    tools = replace(
        tools_of(qemu, source_qemu, destination_qemu, kernel, qemu_source, fault), warm=warm and not nested
    )
    beside_one = {
        "--junit": junit is not None,
        "--html": html is not None,
        "--keep": keep is not None,
        "--pause-at": bool(pause_at),
    }
    instead = in_place_of_a_run(
        scenarios,
        changes,
        tools,
        until_failure=until_failure,
        most=most,
        print_command=print_command,
        nested=nested,
        jobs=jobs,
        beside=[name for name, value in beside_one.items() if value],
        out=out,
        as_json=json,
    )
    if instead is not None:
        raise typer.Exit(instead)
    from harness.suite.several import NamedRuns, run_named, run_single

    if nested and jobs is not None:
        raise InputError("--jobs has nothing to say beside --nested: its machine makes one run at a time")
    hand = wanted_by_hand(scenarios, keep, pause_at or (), nested=nested)
    named = NamedRuns(scenarios, changes, tools, nested, hand)
    if workers is not None and (keep is not None or pause_at):
        raise InputError("--keep and --pause-at stop a run on this machine, and not on --workers")
    sinks = report_sinks(junit, html)
    with cluster_engine(workers, tls, artefacts) as engine:
        if engine is not None and len(scenarios) == 1:
            from harness.cluster.single import run_one_elsewhere

            raise typer.Exit(run_one_elsewhere(named, engine, out=out, as_json=json, sinks=sinks))
        if engine is not None:
            report = run_named(named, out=out, jobs=jobs, sinks=sinks, engine=engine)
            show_report(report, as_json=json)
    if len(scenarios) == 1:
        raise typer.Exit(run_single(named, out=out, as_json=json, sinks=sinks))
    show_report(run_named(named, out=out, jobs=jobs or 1, sinks=sinks), as_json=json)


@app.command()
def shell(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see 'scenario list') or a file.",
            autocompletion=scenario_names,
        ),
    ],
    arm: ArmOption = None,
    accel: Accel = None,
    memory: MemoryOption = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; must not exist yet.")
    ] = None,
    qemu: QemuOption = None,
    kernel: KernelName = None,
    kernel_config: KernelConfig = None,
    qemu_source: QemuSourceOption = None,
    nested: Nested = False,
) -> None:
    """Boot the scenario's guest on the source, with everything in place, and give a shell in it.

    On a terminal the shell is interactive; otherwise it reads commands from stdin.
    """
    changes = overrides(arm, accel, memory, seed, None, settings, None, kernel_config)
    tools = tools_of(qemu, None, None, kernel, qemu_source)
    if nested:
        from harness.nested.shell import open_shell_nested

        raise typer.Exit(open_shell_nested(scenario, changes, tools, out=out))
    from harness.run.supervise import open_shell

    raise typer.Exit(open_shell(scenario, changes, tools, out=out))
