# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts in a lab on this machine, in namespaces of the run's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import accel
from harness.hosts.enter import enter
from harness.hosts.lab import Lab
from harness.hosts.netns import SegmentPlan
from harness.hosts.this_machine import (
    demand_hugepages,
    demand_userfaultfd,
    demand_vhost,
    demand_zero_copy,
    memory_available,
)
from harness.plan.machines import Binaries, Machines
from harness.plan.saving import demand_saving
from harness.scenario.resolve import demand_accelerator, demand_memory

if TYPE_CHECKING:
    from harness.events import EventStream
    from harness.hosts.interface import Pair
    from harness.scenario.load import Scenario
    from harness.toolchain.cache import Cache

_HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")

#: Beside the RAM of both sides in their file system: what libvirt itself puts there.
MEMORY_SLACK: Final = 16 << 20


def demand_huge_pages_of(scenario: Scenario, size: int, folder: Path = _HUGE_PAGES) -> None:
    """Raise unless this machine has reserved enough huge pages of a size (bytes) for both sides."""
    place = folder / f"hugepages-{size // 1024}kB"
    needed = 2 * scenario.guests * -(-scenario.guest.all_memory // size)
    if not place.exists():
        known = ", ".join(sorted(path.name.removeprefix("hugepages-") for path in folder.glob("hugepages-*")))
        raise scenario.wrong(
            "guest.memory_backend.page",
            f"this machine has no huge pages of that size; it has {known or 'none'}",
        )
    free = int((place / "free_hugepages").read_text(encoding="ascii"))
    if free < needed:
        raise scenario.wrong(
            "guest.memory_backend.page",
            f"{needed} free huge pages are needed, of which this machine has {free}",
            hint=f"echo {needed} | sudo tee {place / 'nr_hugepages'}",
        )


class LabMachines(Machines):
    """This machine, as both hosts.

    ``own_kernel``: false where a nested machine will make the run, and this one only builds for it.
    """

    step = "lab"
    local = True

    def __init__(self, *, own_kernel: bool = True) -> None:
        self.own_kernel = own_kernel

    @classmethod
    def serves(cls, scenario: Scenario) -> bool:
        """Where no other machines are named."""
        return scenario.remote is None

    @classmethod
    @contextlib.contextmanager
    def reach(cls, scenario: Scenario, events: EventStream) -> Iterator[LabMachines]:  # noqa: ARG003
        """This machine is reached already."""
        yield cls()

    def demand(self, scenario: Scenario) -> None:
        """Raise unless this machine's memory and kernel serve the guest."""
        demand_memory(scenario, memory_available())
        demand_accelerator(scenario, scenario.accelerator)
        if scenario.guest.hugepages:
            demand_hugepages(scenario.guests * scenario.guest.all_memory)
        backend = scenario.guest.memory_backend
        if backend is not None and backend.page is not None:
            demand_huge_pages_of(scenario, backend.page)
        if any(how.switches_on("postcopy-ram") for how in scenario.migrations):
            demand_userfaultfd()
        for how in scenario.migrations:
            if how.switches_on("zero-copy-send"):
                demand_zero_copy(scenario.guests * (how.multifd or 2))
        if scenario.guest.vhost:
            demand_vhost()
        for how in scenario.migrations:
            demand_saving(how)

    def memory_available(self, scenario: Scenario) -> int:  # noqa: ARG002
        """Bytes that this machine can give to guests now."""
        return memory_available()

    def probe(self, binaries: Binaries, cache: Cache, events: EventStream) -> accel.KvmProbe:
        """Whether this machine's KVM runs guests."""
        qemu, kernel = binaries.source_qemu, binaries.kernel
        machine = accel.ProbeMachine(qemu.path, qemu.identity, qemu.firmware, kernel.vmlinuz)
        return accel.probe_kvm(machine, cache, events)

    def run(self, work: Callable[[], int], keep: Iterable[Path]) -> int:
        """In a fork, in namespaces of its own.

        Forked, not executed anew: all that was imported and resolved is there already.  From here on
        this process only waits, and must emit nothing: the event log is the other's.
        """
        return enter(work, keep=keep)

    @contextlib.contextmanager
    def hosts(
        self,
        scenario: Scenario,
        binaries: Binaries,  # noqa: ARG002 - the hosts see this machine's files
        logs: Path,
        events: EventStream,
    ) -> Iterator[Pair]:
        """The lab.  Its daemons still start when this returns; who needs one waits for it."""
        backend = scenario.guest.memory_backend
        beside = 2 * scenario.guests * (backend.offset or 0) if backend is not None else 0
        memory = scenario.memory_of_both + beside + MEMORY_SLACK
        tls = any(how.tls for how in scenario.migrations)
        hugepages = scenario.guest.hugepages or (backend is not None and backend.page is not None)
        nics = [SegmentPlan(not nic.served_apart, nic.queues) for nic in scenario.guest.all_nics]
        files = [how.file for how in scenario.migrations]
        with Lab(
            events,
            memory=memory,
            logs=logs,
            tls=tls,
            hugepages=hugepages,
            nics=nics,
            guests=scenario.guests,
            wire=scenario.bad_wire,
            seed=scenario.seed or 0,
            room=max((file.room for file in files if file.room is not None), default=None),
            disk_room=sum(disk.room or 0 for disk in scenario.guest.all_disks) or None,
            compressor=next((file.compression for file in files if file.compression is not None), None),
        ) as lab:
            yield lab
