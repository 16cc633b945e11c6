# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage cluster``: a scheduler, workers, and ``--workers`` of the commands that make runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, app, print_json
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.cluster.runner import ClusterEngine

cluster_commands = typer.Typer(
    no_args_is_help=True, help="Many machines: a scheduler, and workers that make runs (docs/cluster.md)."
)
app.add_typer(cluster_commands, name="cluster")

Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="SCHEDULER",
        help="Make the runs on a cluster: tcp://HOST:PORT, tls://HOST:PORT, or its scheduler's file.",
    ),
]
ClusterTls = Annotated[
    Path | None,
    typer.Option("--tls", metavar="DIR", help="The cluster's certificates; a must beyond this machine."),
]
Artefacts = Annotated[
    str,
    typer.Option("--artefacts", metavar="SIZE", help="So much of each run's files comes back, at most."),
]
ARTEFACTS = "64MiB"


@contextlib.contextmanager
def _needs_dask() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("dask", "distributed"):
            raise
        raise InputError(
            "a cluster is Dask's, which is not installed", hint="pip install 'freepage-testbed[cluster]'"
        ) from error


@contextlib.contextmanager
def cluster_engine(workers: str | None, tls: Path | None, artefacts: str) -> Iterator[ClusterEngine | None]:
    """A connection to the cluster that is named; None: runs are made here."""
    if workers is None:
        if tls is not None:
            raise InputError("--tls has nothing to say without --workers")
        yield None
        return
    from harness.units import parse_size

    try:
        most = parse_size(artefacts)
    except ValueError as error:
        raise InputError(f"--artefacts {artefacts}: {error}") from error
    with _needs_dask():
        from harness.cluster.client import Cluster
        from harness.cluster.runner import ClusterEngine
    with Cluster(workers, tls) as cluster:
        yield ClusterEngine(cluster, most)


def worker_options(workers: str | None, tls: Path | None) -> list[str]:
    """The same again, for runs that are commands of their own.  Looks at the cluster first."""
    if workers is None:
        with cluster_engine(None, tls, ARTEFACTS):
            return []
    with cluster_engine(workers, tls, ARTEFACTS) as engine:
        assert engine is not None
        words = ["--workers", engine.cluster.address]
    return [*words, "--tls", str(tls.absolute())] if tls is not None else words


@cluster_commands.command("scheduler")
def cluster_scheduler(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where it listens; beyond this machine only with --tls.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: any that is free.")] = 0,
    tls: ClusterTls = None,
    address_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the address there, for --workers to read.")
    ] = None,
) -> None:
    """Be the scheduler of a cluster, until Ctrl-C; prints its address first."""
    with _needs_dask():
        from harness.cluster.serve import serve_scheduler

    serve_scheduler(host, port, tls, address_file, _say)


@cluster_commands.command("worker")
def cluster_worker(
    scheduler: Annotated[
        str, typer.Argument(metavar="SCHEDULER", help="tcp://HOST:PORT, tls://HOST:PORT, or its file.")
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What its runs are marked with.")] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where it listens; default: as Dask finds.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For runs; default: what is available now.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="For runs; default: all.")] = None,
    tls: ClusterTls = None,
) -> None:
    """Make the runs that a scheduler hands out, until Ctrl-C; prints its name when it is ready."""
    with _needs_dask():
        from harness.cluster.serve import find_scheduler, serve_worker
    from dataclasses import replace

    from harness.suite.needs import machine_resources
    from harness.units import parse_size

    offers = machine_resources()
    if memory is not None:
        try:
            offers = replace(offers, memory=parse_size(memory))
        except ValueError as error:
            raise InputError(f"--memory {memory}: {error}") from error
    if cpus is not None:
        offers = replace(offers, cpus=cpus)
    serve_worker(find_scheduler(scheduler), name=name, host=host, tls=tls, offers=offers, ready=_say)


@cluster_commands.command("show")
def cluster_show(
    scheduler: Annotated[str, typer.Argument(metavar="SCHEDULER")], tls: ClusterTls = None, json: Json = False
) -> None:
    """List the workers: what each has for runs, and whether it is of this version."""
    from harness.units import human_size

    with cluster_engine(scheduler, tls, ARTEFACTS) as engine:
        assert engine is not None
        workers = engine.cluster.workers
    if json:
        print_json(
            [
                {"name": one.facts.name, "address": one.address, "resources": dict(one.resources)}
                for one in workers
            ]
        )
        return
    width = max(len(one.facts.name) for one in workers)
    for one in workers:
        has = one.resources
        kvm = ", KVM" if has.get("kvm") else ""
        cpus, memory = int(has.get("cpus", 0)), human_size(int(has.get("memory", 0)))
        typer.echo(f"{one.facts.name:{width}}  {cpus} CPUs, {memory}{kvm}")


@cluster_commands.command("certificates")
def cluster_certificates(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
) -> None:
    """Make the certificates of a cluster, to be copied to all of its machines, and to nobody else."""
    from harness.cluster.security import write_cluster_certificates

    write_cluster_certificates(folder)
    typer.echo(f"{folder}: copy it to all machines of the cluster, and give each --tls")


def _say(text: str) -> None:
    typer.echo(text)
