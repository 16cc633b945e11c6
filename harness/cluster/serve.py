# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a cluster: one scheduler, and a worker or several on each machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dask
from distributed import Scheduler, Worker
from distributed.utils import get_ip

from harness import accel
from harness.cluster.security import demand_safe, security_of
from harness.cluster.work import EndsCancelledRuns
from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.suite.needs import Resources, machine_resources
from harness.toolchain.built import built_machine
from harness.toolchain.cache import Cache

#: A worker that has lost its scheduler tries for so long to find it again, in seconds.
_DEATH_SECONDS: Final = 60
_SETTINGS: Final = {
    # No page, and no remote control of a worker by HTTP.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # What a run takes of memory is its own processes', and is counted as a resource.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.scheduler.work-stealing": True,
    # So often may a run lose its worker before it is given up.
    "distributed.scheduler.allowed-failures": 3,
}


def dask_resources(has: Resources, *, kvm: bool) -> dict[str, float]:
    """What a worker offers, in Dask's words; runs that need KVM take as much of it as of the CPUs."""
    pages = {f"huge-pages-{size}": float(count) for size, count in has.huge_pages.items() if count}
    return {
        "memory": float(has.memory),
        "cpus": float(has.cpus),
        **({"kvm": float(has.cpus)} if kvm else {}),
        **pages,
    }


def serve_scheduler(
    host: str, port: int, tls: Path | None, address_file: Path | None, ready: Callable[[str], None]
) -> None:
    """Be the scheduler until SIGINT or SIGTERM.

    ``ready`` is told the address.  ``port`` 0: any that is free.  ``address_file``: where the address is
    written for workers and commands to find.
    """
    demand_safe(host, tls, f"a scheduler that listens on {host}")
    security = security_of(tls)

    async def serve() -> None:
        scheduler = Scheduler(
            host=host,
            port=port,
            protocol="tls" if security is not None else "tcp",
            security=security or {},
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        )
        async with scheduler:
            if address_file is not None:
                _write(address_file, scheduler.address)
            ready(scheduler.address)
            await _until_told()

    _run(serve, f"{host}:{port}")


def serve_worker(
    scheduler: str,
    *,
    name: str | None,
    host: str | None,
    tls: Path | None,
    offers: Resources | None,
    ready: Callable[[str], None],
) -> None:
    """Be a worker until SIGINT or SIGTERM, or until the scheduler is gone.

    ``offers``: what runs may take; None: what the machine has now.  ``name``: None is Dask's choice.
    """
    demand_safe(host_of(scheduler), tls, f"the scheduler {scheduler}")
    if host is not None:
        demand_safe(host, tls, f"a worker that listens on {host}")
    security = security_of(tls)
    has = offers or machine_resources()

    async def serve() -> None:
        worker = Worker(
            scheduler,
            name=name,
            # Left to itself Dask listens on all addresses.
            host=host or get_ip(host_of(scheduler)),
            protocol="tls" if security is not None else "tcp",
            security=security or {},
            # Each run waits in a thread of its own; how many there are is bounded by resources.
            nthreads=max(4, 2 * has.cpus),
            resources=dask_resources(has, kvm=_has_kvm()),
            memory_limit=0,
            plugins=(EndsCancelledRuns(),),
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            death_timeout=_DEATH_SECONDS,
            local_directory=scratch,
        )
        async with worker:
            ready(worker.name)
            told = asyncio.ensure_future(_until_told())
            gone = asyncio.ensure_future(worker.finished())
            await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
            told.cancel()

    # Of our own: Dask's is one that all users of a machine share.
    with tempfile.TemporaryDirectory(prefix="freepage-worker-") as scratch:
        _run(serve, scheduler)


def _has_kvm() -> bool:
    """Whether KVM can be used here; where nothing is built to try it with, whether it can be opened."""
    if accel.device_problem() is not None:
        return False
    events = EventStream()
    cache = Cache(None, events)
    machine = built_machine(cache)
    return machine is None or accel.probe_kvm(machine, cache, events).usable


def host_of(address: str) -> str:
    """The host in an address of Dask's.  Raises :class:`InputError` for what is none."""
    scheme, found, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    if not (found and colon and host and port.isascii() and port.isdecimal() and scheme in ("tcp", "tls")):
        raise InputError(
            f"{address!r} is no address of a scheduler", hint="tcp://HOST:PORT, tls://HOST:PORT, or its file"
        )
    return host.strip("[]")


def find_scheduler(named: str) -> str:
    """The address that is meant: itself, or what a scheduler has written to a file."""
    if "://" in named:
        return named
    try:
        found = json.loads(Path(named).read_text(encoding="utf-8"))
        address = found["address"]
    except OSError as error:
        raise InputError(
            f"{named}: {error.strerror}", hint="name a scheduler by tcp://HOST:PORT, or by its file"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{named} is not the file of a scheduler: it has no address") from error
    if not isinstance(address, str):
        raise InputError(f"{named} is not the file of a scheduler: its address is no text")
    return address


def _write(path: Path, address: str) -> None:
    try:
        path.write_text(json.dumps({"address": address}) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


async def _until_told() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)
    await told.wait()


def _run(serve: Callable[[], Any], where: str) -> None:
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(_SETTINGS), contextlib.suppress(asyncio.CancelledError):
        try:
            asyncio.run(serve())
        except (OSError, TimeoutError) as error:
            raise MachineryError(f"{where}: {error}") from error
