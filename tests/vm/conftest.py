# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the tests that boot guests: the plugin's (:mod:`harness.testing`), and what they share.

``--freepage-qemu PATH`` names a QEMU to test with instead of the built one.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from harness.testing import Freepage
from harness.toolchain import Kernel, QemuBinary, Toolchain
from tests.vm.support.processes import words_of

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


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """The plugin's, with a small guest."""
    return freepage.with_defaults(memory=MEMORY)


@pytest.fixture(scope="session")
def results(freepage_session: Path) -> Path:
    """For guests that several tests share: a folder of this process's own."""
    folder = freepage_session / f"shared{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def folder(freepage_folder: Path) -> Path:
    """The test's own folder."""
    return freepage_folder


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """What guests are made of."""
    return Toolchain()


@pytest.fixture(scope="session")
def qemu(toolchain: Toolchain, freepage_qemu: str | None) -> QemuBinary:
    """The QEMU under test."""
    return toolchain.external_qemu(Path(freepage_qemu)) if freepage_qemu else toolchain.qemu()


@pytest.fixture(scope="module", params=["default", pytest.param("debug", marks=pytest.mark.slow)])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """For tests of the module: Debian's kernel, and the one that watches locks, lists and memory."""
    return Toolchain().kernel(request.param)


def processes_below(pid: int) -> list[psutil.Process]:
    """The processes that a process has started, and theirs, but for those that end meanwhile."""
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        try:
            one.name()
        except psutil.Error:
            continue
        found.append(one)
    return found


def assert_all_gone(processes: list[psutil.Process]) -> None:
    """None of these processes is left."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, [words_of(process) for process in alive]
