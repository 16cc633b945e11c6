# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver comes and goes, at any time, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.testing.agent_guest import ModuleGuest, Setup
from harness.testing.plain_guest import MIB
from harness.testing.shell_guest import ShellGuest
from harness.toolchain import Kernel, QemuBinary, Toolchain

MODULE = "/lib/modules/freepage_balloon.ko"


@pytest.fixture
def setup(toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel) -> Setup:
    return Setup(toolchain, qemu, kernel, cpus=2)


@pytest.fixture
def shell(setup: Setup, folder: Path) -> Iterator[ShellGuest]:
    with ShellGuest.boot(setup, folder) as guest:
        yield guest


def cycles(guest: ShellGuest, number: int) -> None:
    guest.run(
        f"i=0; while [ $i -lt {number} ]; do"
        f" insmod {MODULE} && rmmod freepage_balloon || break; i=$((i+1)); done; [ $i = {number} ]"
    )


def free_memory(guest: ShellGuest) -> int:
    """Bytes, when nothing is cached that the kernel could let go of."""
    guest.run("sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory")
    return guest.meminfo("MemFree")


@contextmanager
def load(guest: ShellGuest) -> Iterator[None]:
    """The guest has something to do, which is over at the end, with its memory."""
    guest.run(
        "rm -f /run/in /run/said; mkfifo /run/in;"
        " /bin/workload load churn 7 64000000 rate=20000 < /run/in > /run/said & exec 9> /run/in;"
        " until [ -s /run/said ]; do :; done"
    )
    yield
    assert guest.run("cat /run/said").startswith('{"kind":"churn"')
    guest.run("kill $!; exec 9>&-; wait $!; true")


def test_a_hundred_times_under_load(shell: ShellGuest) -> None:
    # What is allocated once and kept (files in debugfs, a slab's first page) is no leak.
    with load(shell):
        cycles(shell, 10)
    # The load has more memory at one time than at another: compared is what is free without it.
    before = free_memory(shell)
    with load(shell):
        for _ in range(10):
            cycles(shell, 10)
    lost = before - free_memory(shell)
    # One buffer for an answer is 32 KiB: a hundred of them would be 3 MiB.
    assert lost < 2 * MIB, lost
    assert not shell.trouble()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["debug"], indirect=True)
def test_what_is_lost_is_noticed(shell: ShellGuest) -> None:
    """A control of the other tests: with the debug kernel, :meth:`ShellGuest.trouble` looks for leaks."""
    shell.load()
    shell.migrate()
    assert not shell.trouble()
    shell.run("echo leak > /sys/kernel/debug/freepage_balloon/test/misbehave")
    for _ in range(3):
        shell.migrate()
    assert any("unreferenced object" in line for line in shell.trouble())


@pytest.mark.parametrize("point", ["before-walk", "mid-walk", "after-walk"])
def test_unbound_in_the_middle_of_a_request(setup: Setup, folder: Path, point: str) -> None:
    with ModuleGuest.boot(setup, folder) as guest:
        guest.call("hold", point)
        with guest.migration():
            guest.call("held", point)
            # Ends the hold, and returns only when the driver is out.
            guest.call("driver-unbind")
        assert guest.call("stats")["module"] is None
        guest.call("driver-bind")
        guest.migrate()
        assert guest.stats()["answers"] > 0
        assert not guest.reports()


def test_a_second_driver_finds_the_device_taken(shell: ShellGuest) -> None:
    shell.load()
    shell.load("virtio_balloon")
    # The stock driver is there, and has nothing to drive; then it is the other way round.
    shell.unload()
    shell.unload("virtio_balloon")
    shell.load("virtio_balloon")
    shell.load()
    shell.run("[ ! -e /sys/kernel/debug/freepage_balloon/active ]")
    assert not shell.trouble()


def test_memory_in_a_balloon_that_is_migrated(shell: ShellGuest) -> None:
    """Ballooned pages are not free: they are on no list, and are not reported."""
    shell.load()
    shell.migrate()
    before = int(shell.read("last_pages"))
    shell.monitor.execute("balloon", {"value": 192 * MIB})
    while shell.next_event("BALLOON_CHANGE").data["actual"] != 192 * MIB:
        pass
    shell.migrate()
    fewer = before - int(shell.read("last_pages"))
    assert abs(fewer - 64 * MIB // 4096) < 1024, fewer
    assert not shell.trouble()
