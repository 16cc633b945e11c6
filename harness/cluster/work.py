# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens on a worker: functions that Dask calls there, each in a thread of its own."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from harness import __version__
from harness.cluster.artefacts import pack_run
from harness.cluster.order import RunAnswer, RunOrder, WorkerFacts
from harness.errors import ExitCode, FreepageError
from harness.events import EventStream, patience
from harness.invoke import bound_to_us, child_environment, command_line
from harness.plan.prepare import load_with_tools
from harness.report.gravity import INTERRUPTED
from harness.suite.build import build_for
from harness.suite.runner import ENDING_SECONDS
from harness.toolchain.cache import Cache, tree_digest
from harness.toolchain.parcel import unpack_parcel
from harness.toolchain.sources import package_folder, python_files

#: The topic of Dask's under which a worker says that it begins a run.
BEGAN: Final = "freepage-began"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def code_digest() -> str:
    """A hash of the package's own files: workers that differ in it would judge otherwise."""
    text = repr(sorted(tree_digest(python_files(), package_folder()).items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def worker_facts(dask_worker: Any) -> WorkerFacts:
    """What this worker is; Dask gives itself by that argument's name."""
    cache = Cache(None, EventStream())
    where = f"{_BOOT_ID.read_text(encoding='ascii').strip()}:{cache.root}"
    return WorkerFacts(dask_worker.name, __version__, code_digest(), platform.python_version(), where)


class OrdersAtWork:
    """The runs of one worker while they last, by their tasks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: set[str] = set()

    @contextmanager
    def holding(self, key: str, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """While this is entered, :meth:`end` finds the process."""
        with self._lock:
            self._processes[key] = process
        try:
            yield
        finally:
            with self._lock:
                del self._processes[key]

    def end(self, key: str) -> None:
        """Ask the run of a task to end; nothing if it has."""
        with self._lock:
            process = self._processes.get(key)
            if process is not None:
                self._ended.add(key)
                process.terminate()

    def was_ended(self, key: str) -> bool:
        """Whether it was asked to end."""
        with self._lock:
            return key in self._ended

    def end_all(self) -> None:
        """Ask all to end."""
        with self._lock:
            keys = list(self._processes)
        for key in keys:
            self.end(key)


#: Of this process: Dask gives its functions no place of their own.
RUNNING: Final = OrdersAtWork()


class EndsCancelledRuns(WorkerPlugin):
    """Whoever has asked for a run is gone, or does not want it any more: its process ends.

    Dask itself lets a task that has begun go on to its end.
    """

    name = "freepage-ends-cancelled-runs"

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:  # noqa: ARG002
        """A task changes its state."""
        if start in ("executing", "long-running") and finish in ("released", "cancelled", "forgotten"):
            RUNNING.end(str(key))

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """The worker closes."""
        RUNNING.end_all()


def make_run(order: RunOrder) -> RunAnswer:
    """Build what is not there, run, and bring back what the run has left."""
    worker = get_worker()
    key = str(worker.get_current_task())
    with tempfile.TemporaryDirectory(prefix="freepage-") as aside:
        scenario, folder, log = Path(aside, "scenario.yaml"), Path(aside, "run"), Path(aside, "log")
        scenario.write_text(order.scenario, encoding="utf-8")
        began = datetime.now(UTC)
        try:
            _build(scenario, order)
        except FreepageError as error:
            return RunAnswer(worker.name, error.exit_code, "", error.render(), began, 0.0, b"", b"")
        worker.log_event(BEGAN, order.name)
        began, started = datetime.now(UTC), time.monotonic()
        status, told = _run(key, order, scenario, folder, log)
        seconds = time.monotonic() - started
        files = pack_run(folder, order.most) if folder.is_dir() else b""
        return RunAnswer(worker.name, status, told, "", began, seconds, log.read_bytes(), files)


_BUILT: Final[set[str]] = set()


def _build(scenario: Path, order: RunOrder) -> None:
    """No run's time has a build in it, on a worker either."""
    loaded, tools = load_with_tools(str(scenario), [], order.tools)
    same = loaded.model_copy(update={"seed": None}).to_yaml() + repr((tools, order.nested))
    if same not in _BUILT:
        build_for(loaded, tools, EventStream(), nested=order.nested)
        _BUILT.add(same)


def _run(key: str, order: RunOrder, scenario: Path, folder: Path, log: Path) -> tuple[int, str]:
    """The exit status of the run's command, and why it was told to end."""
    words: list[str | Path] = ["run", scenario, "--out", folder, *order.tools.options()]
    # A run does not outlive its worker.
    line = bound_to_us(command_line([*words, "--nested"] if order.nested else words))
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            start_new_session=True,
        )
    with RUNNING.holding(key, process):
        told = ""
        if not _ends_within(process, patience(order.timeout)):
            told = f"it took over {order.timeout:.0f} s, and was ended"
            process.terminate()
            if not _ends_within(process, patience(ENDING_SECONDS)):
                process.kill()
        status = process.wait()
    if RUNNING.was_ended(key):
        return INTERRUPTED, "interrupted"
    return status, "" if status == ExitCode.PASS else told


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if math.isinf(seconds) else seconds * 1000))
    finally:
        os.close(descriptor)


def lacking_entries(wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which of these entries, by kind and key, this worker's cache has not."""
    cache = Cache(None, EventStream())
    return [(kind, key) for kind, key in wanted if not cache.has(kind, key)]


def _parcel(token: str) -> Path:
    return Cache(None, EventStream()).folder("store") / f".parcel-{token}"


def take_piece(token: str, piece: bytes, *, first: bool) -> int:
    """Put a piece of a parcel behind those that are here; the bytes that are here now."""
    path = _parcel(token)
    with path.open("wb" if first else "ab") as file:
        file.write(piece)
        return file.tell()


def take_in(token: str) -> int:
    """Take a parcel that is whole into the cache; how many entries were in it."""
    path = _parcel(token)
    try:
        return sum(1 for _ in unpack_parcel(Cache(None, EventStream()), path))
    finally:
        path.unlink(missing_ok=True)
