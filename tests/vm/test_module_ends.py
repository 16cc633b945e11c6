# SPDX-License-Identifier: GPL-2.0-or-later
"""The device goes away under the driver, or the machine does: nobody waits for ever, no page is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import Deadline
from harness.testing.agent_guest import Setup
from harness.testing.plain_guest import MIB
from harness.testing.shell_guest import ShellGuest
from harness.toolchain import Kernel, QemuBinary, Toolchain

#: Where a PC's firmware says which bus it means, and which slot of it loses its power.
SELECT_BUS, EJECT = 0xAE10, 0xAE08

DRIVER = "/sys/bus/virtio/drivers/freepage_balloon"
DEBUG = "/sys/kernel/debug/freepage_balloon"
DEVICE = ("free-page-info=on", "free-page-reporting=on", "deflate-on-oom=on")
#: What it is to have left; without DEFLATE_ON_OOM it would not come to that in every guest.
WANTED = 128 * MIB


@pytest.fixture(
    scope="module",
    params=[
        "default",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("debug", "trixie", "newest")),
    ],
)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Those that take a driver's end each in its own way."""
    return Toolchain().kernel(request.param)


@pytest.fixture
def guest(toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel, folder: Path) -> Iterator[ShellGuest]:
    memory = (512 if kernel.release.endswith("-debug") else 256) * MIB
    # A guest that is switched off stands, and its devices can be looked at.
    setup = Setup(
        toolchain, qemu, kernel, cpus=2, memory=memory, device=DEVICE, more=("-action", "shutdown=pause")
    )
    with ShellGuest.boot(setup, folder) as guest:
        guest.load()
        yield guest


def actual(guest: ShellGuest) -> int:
    answer = guest.monitor.execute("query-balloon")
    assert isinstance(answer, dict)
    return int(answer["actual"])


def wait_for(guest: ShellGuest, size: int) -> None:
    deadline = Deadline(60, f"a balloon that leaves {size} bytes")
    while actual(guest) != size:
        guest.run("true")
        deadline.check()


def stop_amid_inflating(guest: ShellGuest) -> None:
    """The machine stands, and its driver has a part of what the host wants."""
    for _ in range(10):
        before = actual(guest)
        guest.monitor.execute("balloon", {"value": WANTED})
        deadline = Deadline(60, "the first pages in the balloon")
        while actual(guest) > before - MIB:
            deadline.check()
        guest.monitor.execute("stop")
        if actual(guest) > WANTED + 8 * MIB:
            return
        guest.monitor.execute("cont")
        guest.monitor.execute("balloon", {"value": before})
        wait_for(guest, before)
    pytest.fail("the guest inflates faster than it can be stopped")


def outl(guest: ShellGuest, port: int, value: int) -> None:
    guest.monitor.execute("human-monitor-command", {"command-line": f"o /4 {port:#x} {value:#x}"})


def pull_out(guest: ShellGuest) -> None:
    """Take the device from a running guest: nobody asks it, and nothing tells it."""
    (bus,) = guest.monitor.execute("query-pci")
    (slot,) = (device["slot"] for device in bus["devices"] if device["qdev_id"] == "balloon")
    outl(guest, SELECT_BUS, 0)
    outl(guest, EJECT, 1 << slot)
    guest.next_event("DEVICE_DELETED")


def device_status(guest: ShellGuest) -> str:
    path = "/machine/peripheral/balloon/virtio-backend"
    answer = guest.monitor.execute("x-query-virtio-status", {"path": path})
    assert isinstance(answer, dict)
    return str(answer["status"])


def test_pulled_out_while_it_inflates(guest: ShellGuest) -> None:
    total = guest.meminfo("MemFree")
    place = guest.run(f"cd -P {DRIVER}/virtio*/.. && pwd && cd /")
    stop_amid_inflating(guest)
    pull_out(guest)
    guest.monitor.execute("cont")
    # The bus looks, sees that nothing is there any more, and has the driver let go.
    guest.run(f"echo 1 > {place}/remove")
    guest.run(f"[ ! -e {DEBUG} ]")
    assert abs(total - guest.meminfo("MemFree")) < 16 * MIB
    guest.unload()
    assert not guest.trouble()


def test_a_queue_that_breaks_while_it_inflates(guest: ShellGuest) -> None:
    """What the host was not told of does not go into the balloon."""
    free = guest.meminfo("MemFree")
    stop_amid_inflating(guest)
    guest.start(f"echo 1 > {DEBUG}/test/break")
    guest.monitor.execute("cont")
    guest.finish()
    wanted = (512 if "debug" in guest.run("uname -r") else 256) * MIB - WANTED
    guest.run("sleep 1")
    pages = int(guest.read("balloon_pages"))
    assert pages < wanted // 4096
    # Nobody tries again and again.
    guest.run("sleep 1")
    assert int(guest.read("balloon_pages")) == pages
    guest.unload()
    assert abs(free - guest.meminfo("MemFree")) < 16 * MIB
    # It works again, reset.
    guest.load()
    wait_for(guest, WANTED)
    assert not guest.trouble()


def test_no_memory_for_answers_is_no_reason_to_go_without_a_balloon(guest: ShellGuest) -> None:
    guest.unload()
    guest.load(parameters="max_chunks=0")
    guest.monitor.execute("balloon", {"value": WANTED})
    wait_for(guest, WANTED)
    guest.migrate()
    assert int(guest.read("last_pages")) == 0
    assert int(guest.read("partial_answers")) == int(guest.read("answers")) > 0
    # As soon as there is room, it is as it was.
    guest.run("echo 32 > /sys/module/freepage_balloon/parameters/max_chunks")
    guest.migrate()
    assert int(guest.read("last_pages")) > 0
    assert not guest.trouble()


@pytest.mark.parametrize("state", ["working", "pulled-out"])
def test_switched_off(guest: ShellGuest, state: str) -> None:
    if state == "pulled-out":
        stop_amid_inflating(guest)
        pull_out(guest)
        guest.monitor.execute("cont")
    guest.start("/bin/busybox poweroff -f")
    guest.next_event("SHUTDOWN")
    if state == "working":
        # Nothing can reach memory that belongs to somebody else after this.
        assert "DRIVER_OK" not in device_status(guest)
