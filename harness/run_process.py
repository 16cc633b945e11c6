# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts many ``freepage run`` one after the other, each a process, without loading Python for each anew.

    process = start_run(["run", "idle"], stdout=path, stderr=path)
    process.wait(timeout=60)
    process.terminate()

A run that is started as a command spends more processor time on loading modules than on its work.  Here one
process, which does nothing else, loads them (:mod:`multiprocessing`'s fork server); each run is a fork of it,
so nothing that one run leaves in memory reaches the next.  It ends with whoever has started it, and so
does each run.

Inside of a daemonic process of :mod:`multiprocessing`, which may have no children of that kind, runs are
commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final, Protocol

from harness.invoke import bound_to_us, child_environment, command_line

#: What a run uses, loaded once.  By name: this module is below all of them.
_LOADED: Final = (
    "harness.cli",
    "harness.suite.several",
    "harness.run.supervise",
    "harness.run.carry_out",
    "harness.run.journey",
    "harness.run.result",
    "harness.hosts.lab",
    "harness.plan.here",
    "libvirt",
    "numpy",
)


class RunProcess(Protocol):
    """A run's command while it lasts."""

    @property
    def pid(self) -> int:
        """The process."""

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable once it has ended."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status, negative for a signal; None: it has not ended in so many seconds."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


def start_run(words: Sequence[str | Path], *, stdout: Path, stderr: Path) -> RunProcess:
    """Start the command; what it says is appended to files, which may be one and the same."""
    if multiprocessing.current_process().daemon:
        return _Command(words, stdout, stderr)
    return _Forked(words, stdout, stderr)


class _Forked:
    """A fork of the server."""

    def __init__(self, words: Sequence[str | Path], stdout: Path, stderr: Path) -> None:
        _SERVER.set_forkserver_preload(list(_LOADED))
        arguments = (
            list(map(str, words)),
            child_environment(),
            os.fspath(stdout),
            os.fspath(stderr),
            os.fspath(Path.cwd()),
        )
        self._process: ForkServerProcess = _SERVER.Process(target=_be_the_command, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def sentinel(self) -> int:
        return self._process.sentinel

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Command:
    """A process with a Python of its own."""

    def __init__(self, words: Sequence[str | Path], stdout: Path, stderr: Path) -> None:
        with stdout.open("ab") as out, stderr.open("ab") as err:
            self._process = subprocess.Popen(
                bound_to_us(command_line(words)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=child_environment(),
                start_new_session=True,
            )
        self.sentinel = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self._process.returncode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def __del__(self) -> None:
        os.close(self.sentinel)


#: One for this process and all runs that it starts.
_SERVER: Final[ForkServerContext] = multiprocessing.get_context("forkserver")


def _end_with_starter() -> None:
    """Get SIGTERM when whoever has started this run is gone.

    The server outlives that, as long as there are runs, so that the death signal of a parent would not come.
    """
    starter = multiprocessing.parent_process()
    assert starter is not None
    pipe = starter.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:
        # It was quicker than us.
        sys.exit(128 + signal.SIGTERM)


def _be_the_command(
    words: list[str], environment: Mapping[str, str], stdout: str, stderr: str, folder: str
) -> None:
    """In the fork: be what ``freepage`` with these words would be."""
    _end_with_starter()
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    # All forks have the state of one.
    random.seed()
    sys.argv = ["freepage", *words]
    importlib.import_module("harness.cli").main()
