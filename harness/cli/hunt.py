# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage hunt``: scenarios drawn at random."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.cluster import ClusterTls, Workers, worker_options
from harness.cli.options import (
    DestinationQemu,
    FaultOption,
    HistoryName,
    Json,
    KernelName,
    QemuOption,
    QemuSourceOption,
    SourceQemu,
    WarmUnlessTold,
    app,
    print_json,
    tools_of,
)
from harness.errors import InputError


@app.command()
def hunt(
    minutes: Annotated[float, typer.Option(min=0.1, max=10_080, metavar="N", help="How long.")] = 60,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31, metavar="N", help="The same draws each time; or any.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY,KEY...", help="Draw these keys alone, such as migration,guest.vcpus."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, metavar="N", help="So many runs at a time.")
    ] = 1,
    until_found: Annotated[
        bool, typer.Option("--until-found", help="End with the first failure that is not known.")
    ] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Say which lines of QEMU's code were reached, by gcov.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Runs, examples, what was found; a hunt there goes on.")
    ] = Path("hunt"),
    qemu: QemuOption = None,
    source_qemu: SourceQemu = None,
    destination_qemu: DestinationQemu = None,
    qemu_source: QemuSourceOption = None,
    kernel: KernelName = None,
    fault: FaultOption = None,
    history: HistoryName = None,
    warm: WarmUnlessTold = None,
    workers: Workers = None,
    tls: ClusterTls = None,
    json: Json = False,
) -> None:
    """Draw scenarios at random, run them, and keep what fails as small as it can be.

    Exit status: 0 nothing that is not known; 1 something was found; 3 the machinery does not work.
    """
    try:
        from harness.hunt.conduct import conduct_hunt, summarise_hunt
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise InputError(
            "freepage hunt draws with Hypothesis, which is not installed",
            hint="pip install 'freepage-testbed[hunt]'",
        ) from error
    tools = tools_of(qemu, source_qemu, destination_qemu, kernel, qemu_source, fault)
    options = [] if warm is False else ["--warm"]
    options += worker_options(workers, tls)
    if coverage and workers is not None:
        raise InputError("--coverage has nothing to say beside --workers: what they count stays there")
    from harness.history.hunt import hunt_batch
    from harness.history.record import keep_batch
    from harness.history.store import open_for_writing

    began, started = datetime.now(UTC), time.monotonic()
    with open_for_writing(history) as store:
        status, report = conduct_hunt(
            tools,
            options,
            minutes=minutes,
            seed=secrets.randbits(31) if seed is None else seed,
            only=[key.strip() for key in (only or "").split(",") if key.strip()],
            jobs=jobs,
            out=out,
            until_found=until_found,
            coverage=coverage,
        )
        # With a fault the hunt is a test of itself, and what it finds is no QEMU's.
        if store is not None and fault is None:
            command = shlex.join(["freepage", *sys.argv[1:]])
            kept = hunt_batch(report, began, time.monotonic() - started, status, command)
            keep_batch(store, kept.batch, kept.runs)
    if json:
        print_json(report.document())
    else:
        typer.echo("\n".join(summarise_hunt(report)))
    raise typer.Exit(status)
