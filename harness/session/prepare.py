# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that comes before the lab: the scenario resolved, every binary there.

Nothing is started here but builds.  What is wrong with the user's input is said
before the first of them: a scenario with a typing error must not cost five
minutes of compiling.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from harness import accel
from harness.errors import InputError
from harness.events import EventStream
from harness.faults.injection import Injection, injection_of
from harness.hosts import kernel as kernel_calls
from harness.hosts import netns
from harness.scenario import (
    HOST_MARGIN,
    MachineFacts,
    Override,
    Resolved,
    Scenario,
    load_scenario,
    resolve,
)
from harness.session.plan import GuestDisk, RunPlan, Tools
from harness.toolchain import Image, Kernel, QemuBinary, Toolchain

if TYPE_CHECKING:
    from harness.hosts.interface import Pair

_MEMINFO: Final = Path("/proc/meminfo")

#: What a NIC that the kernel serves takes, and the modules that make them.
_VHOST: Final = {netns.TUN: "tun", Path("/dev/vhost-net"): "vhost_net"}


def memory_available() -> int:
    """Bytes that this machine can give to guests now."""
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise InputError(f"{_MEMINFO} does not say how much memory is available")


def demand_hugepages(memory: int) -> None:
    """Raise if this machine has not reserved huge pages for so much memory, twice (bytes)."""
    numbers = {}
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if value.split():
            numbers[key] = int(value.split()[0])
    size = numbers.get("Hugepagesize", 0) * 1024
    needed = 2 * -(-memory // size) if size else 0
    if not size or numbers.get("HugePages_Free", 0) < needed:
        raise InputError(
            f"guest.hugepages: {needed} free huge pages are needed, of which this machine has "
            f"{numbers.get('HugePages_Free', 0)}",
            hint=f"sudo sysctl vm.nr_hugepages={needed}, or guest.hugepages: false",
        )


def demand_userfaultfd() -> None:
    """Raise if QEMU, which the user starts, could not see to faults in a guest's memory (postcopy)."""
    try:
        os.close(kernel_calls.open_userfaultfd())
    except OSError as error:
        raise InputError(
            f"migration.postcopy: this user may have no userfaultfd: {error.strerror}",
            hint="sudo sysctl vm.unprivileged_userfaultfd=1, or be root, or migration.postcopy: false",
        ) from error


def demand_vhost() -> None:
    """Raise if this machine's kernel cannot serve a guest's NIC, or not for this user."""
    for path, module in _VHOST.items():
        try:
            netns.try_device(path)
        except OSError as error:
            raise InputError(
                f"guest.vhost: {path} cannot be opened: {error.strerror}",
                hint=f"sudo modprobe {module}, and be somebody who may open it; or use --nested",
            ) from error


def load(name: str, changes: Sequence[str | Override], tools: Tools) -> tuple[Scenario, Tools]:
    """The scenario with the command's changes; a kernel named on the command line wins."""
    scenario = load_scenario(name, changes)
    if tools.kernel is None and scenario.guest.kernel != "default":
        tools = replace(tools, kernel=scenario.guest.kernel)
    elif tools.kernel is not None:
        guest = scenario.guest.model_copy(update={"kernel": tools.kernel})
        scenario = scenario.model_copy(update={"guest": guest})
    return scenario, tools


class Machines(Protocol):
    """The machines that the two hosts are, where they are not this one."""

    def memory_available(self) -> int:
        """Bytes for the guests of both sides together."""

    def demand_memory(self, memory: int) -> None:
        """Raise unless a guest of this size fits on each."""

    def own_qemus(self, toolchain: Toolchain) -> tuple[QemuBinary | None, QemuBinary | None]:
        """The QEMUs of source and destination that are there already."""

    def probe(self, qemus: tuple[QemuBinary, QemuBinary], kernel: Kernel, events: EventStream) -> accel.Probe:
        """Whether KVM runs guests on both."""

    def hosts(
        self, qemus: tuple[QemuBinary, QemuBinary], kernel: Kernel, logs: Path, events: EventStream
    ) -> AbstractContextManager[Pair]:
        """The two hosts, with everything in place for a guest."""


def prepare(
    scenario: Scenario, tools: Tools, events: EventStream, began: float, machines: Machines | None = None
) -> RunPlan:
    """Build or find what the scenario needs, and decide what it left open.

    ``machines``: where the run will be; None: here, in a lab.
    """
    # Asked before anything is built, and again after: a build takes minutes, and memory comes and goes.
    if machines is None:
        resolve(scenario, MachineFacts(memory_available(), kvm_usable=True))
        if scenario.guest.hugepages:
            demand_hugepages(scenario.guest.all_memory)
        if scenario.migration.postcopy:
            demand_userfaultfd()
        if scenario.guest.vhost:
            demand_vhost()
    else:
        machines.demand_memory(scenario.guest.memory)
    toolchain = Toolchain(events=events, qemu_source=tools.qemu_source)
    with events.step("prepare") as step:
        injection = injection_of(tools.fault)
        own = machines.own_qemus(toolchain) if machines is not None else (None, None)
        source, destination = _qemus(toolchain, tools, scenario.arm, injection, own)
        kernel = toolchain.kernel(tools.kernel or "default")
        image, disk = _image(scenario, toolchain, kernel, injection, machines)
        if machines is None:
            resolved, reason = _resolve(scenario, toolchain, source, kernel, events)
        else:
            resolved, reason = _resolve_there(scenario, machines, (source, destination), kernel, events)
        kind = scenario.workload.kind
        archive = toolchain.compile_archive() if kind == "compile" else None
        if scenario.workload.reads_disk and disk is None:
            disk = GuestDisk(toolchain.formula_disk(resolved.noise_bytes), private=False)
        preload = _preload(toolchain, scenario)
        step.note(accelerator=resolved.accelerator, reason=reason)
    return RunPlan(
        resolved,
        tools,
        reason,
        source,
        destination,
        kernel,
        image,
        began,
        injection,
        machines,
        archive,
        disk,
        preload,
    )


def _image(
    scenario: Scenario,
    toolchain: Toolchain,
    kernel: Kernel,
    injection: Injection,
    machines: Machines | None,
) -> tuple[Image, GuestDisk | None]:
    """What the guest boots from; a distribution has a disk, of which the run gets a copy."""
    variant = "test" if injection.faulty_module else scenario.guest.module
    if (scenario.guest.image or scenario.workload.image) == "small":
        return toolchain.image(kernel, variant), None
    if machines is not None:
        raise InputError(
            "guest.image: a guest with a disk to write to cannot move between two machines yet",
            hint="its disk would have to be on storage that both reach; use guest.image=small",
        )
    if scenario.workload.reads_disk:
        kind = scenario.workload.kind
        raise InputError(f"workload.kind: {kind} reads a disk of its own, which guest.image=debian has not")
    distribution = toolchain.distribution(kernel, variant)
    return distribution.image, GuestDisk(distribution.disk, private=True)


def _preload(toolchain: Toolchain, scenario: Scenario) -> Path | None:
    if scenario.guest.kvm_dirty != "bitmap-without-manual-protect":
        return None
    if scenario.remote is not None:
        raise InputError(
            "guest.kvm_dirty: bitmap-without-manual-protect is for hosts on this machine",
            hint="leave --source and --destination out, or take the ring or the bitmap",
        )
    return toolchain.no_manual_protect()


def _qemus(
    toolchain: Toolchain,
    tools: Tools,
    arm: str,
    injection: Injection,
    own: tuple[QemuBinary | None, QemuBinary | None],
) -> tuple[QemuBinary, QemuBinary]:
    # What the user names is looked at before anything of ours is built.
    named = [
        there or (toolchain.external_qemu(path) if path else None)
        for there, path in zip(own, (tools.source_qemu, tools.destination_qemu), strict=True)
    ]
    for qemu in named:
        if qemu is not None:
            qemu.require_arm(arm)
    source, destination = (qemu or toolchain.qemu(injection.qemu_flavour) for qemu in named)
    for qemu in (source, destination):
        qemu.require_arm(arm)
    return source, destination


def _resolve(
    scenario: Scenario, toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel, events: EventStream
) -> tuple[Resolved, str]:
    """The accelerator is decided where it is not given, and checked where it is."""
    available = memory_available()
    if scenario.accelerator == "tcg":
        return resolve(scenario, MachineFacts(available)), "asked for"
    machine = accel.Machine(qemu.path, qemu.sha256, qemu.firmware, kernel.vmlinuz)
    probe = accel.probe(machine, toolchain.cache, events)
    resolved = resolve(scenario, MachineFacts(available, kvm_usable=probe.usable, kvm_reason=probe.reason))
    return resolved, probe.reason


def _resolve_there(
    scenario: Scenario,
    machines: Machines,
    qemus: tuple[QemuBinary, QemuBinary],
    kernel: Kernel,
    events: EventStream,
) -> tuple[Resolved, str]:
    """The same for machines that are not this one."""
    # That memory is enough was asked of each of them.
    available = max(machines.memory_available(), 2 * scenario.guest.memory + HOST_MARGIN)
    if scenario.accelerator == "tcg":
        return resolve(scenario, MachineFacts(available)), "asked for"
    probe = machines.probe(qemus, kernel, events)
    resolved = resolve(scenario, MachineFacts(available, kvm_usable=probe.usable, kvm_reason=probe.reason))
    return resolved, probe.reason


def command_start() -> float:
    """When this command began, by the clock of :func:`time.monotonic`: a run is measured from there.

    Before the first line of Python, that is: loading it is a part of what a user waits for.
    """
    # After the name in parentheses, which may hold anything, starttime is the 20th field.
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    started = ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
