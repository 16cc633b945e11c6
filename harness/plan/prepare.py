# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that comes before the lab: the scenario resolved, every binary there.

Nothing is started here but builds.  What is wrong with the user's input is said
before the first of them: a scenario with a typing error must not cost five
minutes of compiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import InputError
from harness.events import EventStream
from harness.faults.injection import Injection, injection_of
from harness.hosts.this_machine import demand_hugepages, demand_userfaultfd, demand_vhost, memory_available
from harness.plan.device_facts import demand_devices
from harness.plan.here import _resolve
from harness.plan.plan import GuestDisk, Machines, RunPlan, Tools
from harness.plan.remote import _resolve_there
from harness.scenario.load import Override, Scenario, load_scenario
from harness.scenario.resolve import MachineFacts, resolve
from harness.toolchain import Image, Kernel, QemuBinary, Toolchain


def load(name: str, changes: Sequence[str | Override], tools: Tools) -> tuple[Scenario, Tools]:
    """The scenario with the command's changes; a kernel named on the command line wins."""
    scenario = load_scenario(name, changes)
    if tools.kernel is None and scenario.guest.kernel != "default":
        tools = replace(tools, kernel=scenario.guest.kernel)
    elif tools.kernel is not None:
        guest = scenario.guest.model_copy(update={"kernel": tools.kernel})
        scenario = scenario.model_copy(update={"guest": guest})
    return scenario, tools


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
        devices = resolved.scenario.guest.all_devices
        demand_devices(devices, (source, destination), resolved.accelerator, remote=machines is not None)
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
