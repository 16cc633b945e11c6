# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the tests that boot guests.

Each test has a folder of its own, below ``.test-results``, which survives it: a
run that failed is looked at, not repeated.  A guest or host that is lost is an
error of the machinery (exit status 3), which no test here takes for a verdict.

``FREEPAGE_TEST_QEMU`` names a QEMU to test with instead of the built one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from harness.report.result import Result
from harness.toolchain import Kernel, Toolchain
from tests.vm.processes import name_of, words_of

QEMU = os.environ.get("FREEPAGE_TEST_QEMU")

#: Small: what is shown here does not depend on the size.
MEMORY = "512MiB"

#: No single run takes longer, on a slow machine under emulation.
LONGEST = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots guests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def results(repository: Path) -> Path:
    """The folder of this session, new."""
    parent = repository / ".test-results"
    parent.mkdir(exist_ok=True)
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    folder = parent / stem
    folder.mkdir()
    return folder


@pytest.fixture(scope="module", params=["default", pytest.param("debug", marks=pytest.mark.slow)])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """For tests of the module: Debian's kernel, and the one that watches locks, lists and memory."""
    return Toolchain().kernel(request.param)


@pytest.fixture
def folder(results: Path, request: pytest.FixtureRequest) -> Path:
    """The test's own folder."""
    path = results / re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name)
    path.mkdir()
    return path


class Ended:
    """A command that has ended."""

    def __init__(self, status: int, stdout: str, stderr: str, out: Path) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.out = out

    @property
    def result(self) -> Result:
        """What was printed with ``--json``."""
        return Result.from_json(self.stdout)

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.stdout}\n{self.stderr}"


class Running:
    """A command that runs; its steps are read off its stderr as they begin."""

    def __init__(self, arguments: list[str], out: Path, stdin: str | None = None) -> None:
        self.out = out
        self._heard: list[str] = []
        self._input = stdin
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness", *arguments],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_step(self, name: str) -> None:
        """Return when the step begins; fails if the command ends before."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._heard.append(line)
            if re.match(rf"\s*\.\.\.\s+{re.escape(name)}\b", line):
                return
        raise AssertionError(f"ended before step {name!r}:\n{''.join(self._heard)}")

    def family(self) -> list[psutil.Process]:
        """Every process of the command."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def qemu(self, side: str) -> psutil.Process:
        """The QEMU of one side."""
        for process in self.family():
            if name_of(process).startswith("qemu-system") and any(
                f"/{side}/" in word and "monitor" in word for word in words_of(process)
            ):
                return process
        raise AssertionError(f"no QEMU on the {side}")

    def end(self, longest: float = LONGEST) -> Ended:
        """Wait for the end, for so many seconds."""
        stdout, stderr = self.process.communicate(self._input, timeout=longest)
        return Ended(self.process.returncode, stdout, "".join(self._heard) + stderr, self.out)


Start = Callable[..., Running]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start ``freepage COMMAND SCENARIO ...`` with a run folder below the test's own."""
    started: list[Running] = []

    def begin(command: str, scenario: str, *options: str, stdin: str | None = None) -> Running:
        out = folder / f"run-{len(started) + 1}"
        qemu = ["--qemu", QEMU] if QEMU and not any("qemu" in option for option in options) else []
        memory = [] if "--memory" in options else ["--memory", MEMORY]
        arguments = [command, scenario, *memory, *qemu, "--out", str(out), *options]
        started.append(Running(arguments, out, stdin))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.fixture
def run(start: Start) -> Callable[..., Ended]:
    """Run ``freepage run SCENARIO ... --json`` to its end."""

    def go(scenario: str, *options: str) -> Ended:
        return start("run", scenario, "--json", *options).end()

    return go


def assert_all_gone(family: list[psutil.Process]) -> None:
    """None of these processes is left."""
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, [words_of(process) for process in alive]
