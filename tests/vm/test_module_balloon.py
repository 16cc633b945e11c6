# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a user of the kernel's own driver has: each test runs with that driver as well.

Where the two are compared, the stock driver shows that the test asks for nothing
that it does not do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.testing.agent_guest import Setup
from harness.testing.plain_guest import MIB
from harness.testing.shell_guest import ShellGuest
from harness.toolchain import Kernel, QemuBinary, Toolchain

OURS, STOCK = "freepage_balloon", "virtio_balloon"
DRIVERS = (OURS, STOCK)

#: Also those that count reclaim in another place.
KERNEL_PARAMS = ["default", *(pytest.param(name, marks=pytest.mark.slow) for name in ("trixie", "newest"))]

Boot = Callable[..., ShellGuest]


@pytest.fixture
def memory(kernel: Kernel) -> int:
    """The guest's, in bytes: what is left of it is about the same with either kernel."""
    return (512 if kernel.release.endswith("-debug") else 256) * MIB


@pytest.fixture
def boot(toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel, memory: int, folder: Path) -> Iterator[Boot]:
    """Boot a guest with these options of the device, and load a driver."""
    with ExitStack() as stack:

        def begin(
            driver: str, *device: str, cmdline: str = "", extra: int = 0, more: Sequence[str] = ()
        ) -> ShellGuest:
            info = ("free-page-info=on",) if driver == OURS else ()
            setup = Setup(
                toolchain,
                qemu,
                kernel,
                memory=memory + extra,
                cmdline=cmdline,
                device=(*info, *device),
                more=more,
            )
            guest = stack.enter_context(ShellGuest.boot(setup, folder))
            guest.load(driver)
            return guest

        yield begin


def set_balloon(guest: ShellGuest, size: int) -> None:
    """Have the guest's memory be so large, and see it so."""
    guest.monitor.execute("balloon", {"value": size})
    while guest.next_event("BALLOON_CHANGE").data["actual"] != size:
        pass


def actual(guest: ShellGuest) -> int:
    answer = guest.monitor.execute("query-balloon")
    assert isinstance(answer, dict)
    return int(answer["actual"])


@pytest.mark.parametrize("driver", DRIVERS)
def test_inflate_and_deflate(boot: Boot, memory: int, driver: str) -> None:
    guest = boot(driver)
    total = guest.meminfo("MemTotal")
    set_balloon(guest, memory - 64 * MIB)
    assert total - guest.meminfo("MemTotal") == 64 * MIB
    # A new wish in the middle of an old one.
    guest.monitor.execute("balloon", {"value": memory - 128 * MIB})
    set_balloon(guest, memory - 32 * MIB)
    assert total - guest.meminfo("MemTotal") == 32 * MIB
    set_balloon(guest, memory)
    assert guest.meminfo("MemTotal") == total
    # What was given back can be used.
    guest.run("mount -t tmpfs -o size=100% tmpfs /tmp && dd if=/dev/zero of=/tmp/x bs=1M count=128")
    assert not guest.trouble()


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_host_had_asked_before_the_driver_came(boot: Boot, memory: int, driver: str) -> None:
    guest = boot(driver)
    guest.unload(driver)
    guest.monitor.execute("balloon", {"value": memory - 64 * MIB})
    guest.load(driver)
    while guest.next_event("BALLOON_CHANGE").data["actual"] != memory - 64 * MIB:
        pass
    # All pages come back with the driver's end.
    total = guest.meminfo("MemTotal")
    guest.unload(driver)
    assert guest.meminfo("MemTotal") == total + 64 * MIB
    assert actual(guest) == memory
    assert not guest.trouble()


def statistics(guest: ShellGuest) -> dict[str, int]:
    """What the host is told from now on."""
    path = "/machine/peripheral/balloon/virtio-backend"
    guest.monitor.execute("qom-set", {"path": path, "property": "guest-stats-polling-interval", "value": 1})
    updates: set[int] = set()
    while True:
        # The guest's shell paces this.
        guest.run("true")
        answer = guest.monitor.execute("qom-get", {"path": path, "property": "guest-stats"})
        assert isinstance(answer, dict)
        # The first one may be older than the question.
        updates |= {answer["last-update"]} - {0}
        if len(updates) > 2:
            return {name: value for name, value in answer["stats"].items() if value != 2**64 - 1}


#: What the host calls it: how /proc/vmstat does, and the bytes of one.
COUNTERS = {
    "stat-swap-in": (r"pswpin", 4096),
    "stat-swap-out": (r"pswpout", 4096),
    "stat-major-faults": (r"pgmajfault", 1),
    "stat-minor-faults": (r"pgfault", 1),
    "stat-htlb-pgalloc": (r"htlb_buddy_alloc_success", 1),
    "stat-htlb-pgfail": (r"htlb_buddy_alloc_fail", 1),
    "stat-oom-kills": (r"oom_kill", 1),
    "stat-alloc-stalls": (r"allocstall_\w+", 1),
    "stat-async-scans": (r"pgscan_kswapd", 4096),
    "stat-direct-scans": (r"pgscan_direct", 4096),
    "stat-async-reclaims": (r"pgsteal_kswapd", 4096),
    "stat-direct-reclaims": (r"pgsteal_direct", 4096),
}
SINCE_6_12 = {
    name
    for name in COUNTERS
    if "direct" in name or "async" in name or name in ("stat-oom-kills", "stat-alloc-stalls")
}
#: What goes up and down, and how far it may have come in two seconds.
LEVELS = {
    "stat-total-memory": ("MemTotal", 0),
    "stat-free-memory": ("MemFree", 32 * MIB),
    "stat-available-memory": ("MemAvailable", 32 * MIB),
    "stat-disk-caches": ("Cached", 32 * MIB),
}


def counters(guest: ShellGuest) -> dict[str, int]:
    """The guest's own numbers, as the host should have them."""
    here = [(name, int(value)) for name, value in map(str.split, guest.run("cat /proc/vmstat").splitlines())]
    return {
        stat: sum(value for name, value in here if re.fullmatch(pattern, name)) * unit
        for stat, (pattern, unit) in COUNTERS.items()
        if any(re.fullmatch(pattern, name) for name, _ in here)
    }


@pytest.mark.parametrize("kernel", KERNEL_PARAMS, indirect=True)
def test_statistics(boot: Boot, folder: Path) -> None:
    disk = ("-blockdev", "driver=null-co,node-name=zeros,size=4294967296,read-zeroes=on")
    guest = boot(OURS, more=(*disk, "-device", "virtio-blk-pci,drive=zeros"))
    # More than there is memory for: the kernel looks for what it can let go of, and finds it.
    guest.run("insmod /lib/modules/virtio_blk.ko; until [ -e /dev/vda ]; do :; done")
    guest.run("dd if=/dev/vda of=/dev/null bs=1M count=700")
    before = counters(guest)
    ours = statistics(guest)
    after = counters(guest)
    wrong = {
        name: (before[name], value, after[name])
        for name, value in ours.items()
        if name in before and not before[name] <= value <= after[name]
    }
    assert not wrong
    # All, or all that the header of an older kernel has tags for.
    missing = (before.keys() | LEVELS.keys()) - ours.keys()
    assert missing in (set(), SINCE_6_12)
    if not missing:
        assert min(ours["stat-async-scans"], ours["stat-async-reclaims"]) > 0
    for name, (there, most) in LEVELS.items():
        assert abs(ours[name] - guest.meminfo(there)) <= most, name
    guest.unload(OURS)
    guest.load(STOCK)
    # Nothing is missing that the kernel's own driver says.
    assert statistics(guest).keys() <= ours.keys()
    assert not guest.trouble()


@pytest.mark.parametrize("driver", DRIVERS)
def test_deflate_when_the_guest_runs_out_of_memory(boot: Boot, memory: int, driver: str) -> None:
    guest = boot(driver, "deflate-on-oom=on")
    total = guest.meminfo("MemTotal")
    set_balloon(guest, memory - 128 * MIB)
    # Its pages still count as the guest's.
    assert guest.meminfo("MemTotal") == total
    more = guest.meminfo("MemAvailable") // MIB + 32
    guest.run(f"mount -t tmpfs -o size=100% tmpfs /tmp && dd if=/dev/zero of=/tmp/x bs=1M count={more}")
    assert memory - 128 * MIB < actual(guest) < memory
    assert "Out of memory" not in guest.run("dmesg")
    assert guest.vmstat("oom_kill") == 0
    assert not guest.trouble()


@pytest.mark.parametrize("driver", DRIVERS)
def test_free_page_reporting(boot: Boot, driver: str) -> None:
    guest = boot(driver, "free-page-reporting=on")
    (ram,) = guest.plain.folder.glob("m0")
    guest.run("mount -t tmpfs -o size=100% tmpfs /tmp && dd if=/dev/urandom of=/tmp/x bs=1M count=100")
    before = ram.stat().st_blocks * 512
    guest.run("rm /tmp/x")
    # The allocator reports two seconds after it has something to report.
    while before - ram.stat().st_blocks * 512 < 64 * MIB:
        guest.run("true")
    assert not guest.trouble()


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_pages_in_the_balloon_can_be_moved(boot: Boot, memory: int, driver: str) -> None:
    extra = 256 * MIB
    # All but 192 MiB is movable. (Where its kernel may lie anywhere, it lies in there now and then, and
    # cannot be moved. What it sets aside while it boots, a debug kernel a lot, is at the top.)
    movable = (memory + extra - 192 * MIB) // MIB
    guest = boot(driver, cmdline=f"movablecore={movable}M nokaslr", extra=extra)
    total = guest.meminfo("MemTotal")
    balloon = (memory + extra) // 2
    set_balloon(guest, memory + extra - balloon)
    before = guest.vmstat("balloon_migrate")
    # To take memory offline, the kernel moves all pages out of it: into the other zone, too.
    guest.run("cd /sys/devices/system/memory/memory2 && echo offline > state")
    # Half of it at the least was the balloon's.
    assert guest.vmstat("balloon_migrate") - before > 64 * MIB // 4096
    guest.run("echo online_movable > state")
    assert actual(guest) == memory + extra - balloon
    set_balloon(guest, memory + extra)
    assert guest.meminfo("MemTotal") == total
    assert not guest.trouble()


# Slow, as 6.1 itself warns now and then: its allocator asks for random numbers while time is suspended.
@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_suspend_to_memory(boot: Boot, memory: int, driver: str) -> None:
    guest = boot(driver)
    set_balloon(guest, memory - 64 * MIB)
    guest.start("echo mem > /sys/power/state")
    guest.next_event("SUSPEND")
    # Asleep, the guest has all of its memory: it could not be told to give up more.
    assert actual(guest) == memory
    guest.monitor.execute("system_wakeup")
    guest.finish()
    while guest.next_event("BALLOON_CHANGE").data["actual"] != memory - 64 * MIB:
        pass
    if driver == OURS:
        before = int(guest.read("answers"))
        guest.migrate()
        assert int(guest.read("answers")) > before
    assert not guest.trouble()


def test_bound_and_unbound(boot: Boot, memory: int) -> None:
    guest = boot(OURS)
    set_balloon(guest, memory - 64 * MIB)
    guest.run("cd /sys/bus/virtio/drivers/freepage_balloon && echo virtio* > /run/name && test -s /run/name")
    guest.run("cat /run/name > unbind")
    assert actual(guest) == memory
    guest.run("cat /run/name > bind")
    while guest.next_event("BALLOON_CHANGE").data["actual"] != memory - 64 * MIB:
        pass
    guest.migrate()
    assert int(guest.read("answers")) > 0
    assert not guest.trouble()
