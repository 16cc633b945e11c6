# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that comes before the hosts: the scenario resolved, every binary there.

Nothing is started here but builds.  What is wrong with the user's input is said
before the first of them: a scenario with a typing error must not cost five
minutes of compiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.events import EventStream
from harness.faults.injection import Injection, injection_of
from harness.guest.login import Login, LoginError, read_login
from harness.plan.architecture import demand_architecture
from harness.plan.device_facts import (
    demand_devices,
    demand_modules,
    device_facts,
    own_modules,
    place_in,
)
from harness.plan.machine import demand_board, demand_firmware, demand_globals
from harness.plan.machines import Binaries, Machines
from harness.plan.mode_facts import demand_modes
from harness.plan.plan import GuestDisk, RunPlan, Tools
from harness.plan.tapped import decide_tap
from harness.scenario.load import Override, Scenario, load_scenario
from harness.scenario.paths import with_whole_paths
from harness.toolchain import GuestImage, Kernel, QemuBinary, Toolchain
from harness.toolchain.cache import file_digest
from harness.toolchain.own_image import OwnImage, read_own_image
from harness.toolchain.user_program import demand_static_program
from harness.verdict.expected_rule import demand_known_rule

#: From this version on an emulating QEMU's dirty log is complete in the first RAMBlock; see docs/found.md.
_DIRTY_LOG_RIGHT: Final = (9, 0)
_LOSES_WRITES: Final = (
    "the source's QEMU {version} loses writes where it emulates, as all before 9.0 (docs/found.md): "
    "memory that is wrong may be wrong for that"
)


def load_with_tools(name: str, changes: Sequence[str | Override], tools: Tools) -> tuple[Scenario, Tools]:
    """The scenario with the command's changes; a kernel named on the command line wins."""
    scenario = with_whole_paths(load_scenario(name, changes))
    demand_known_rule(scenario)
    if tools.kernel is None and scenario.guest.kernel != "default":
        tools = replace(tools, kernel=scenario.guest.kernel)
    elif tools.kernel is not None:
        guest = scenario.guest.model_copy(update={"kernel": tools.kernel})
        scenario = scenario.model_copy(update={"guest": guest})
    return scenario, tools


def prepare(
    scenario: Scenario, tools: Tools, events: EventStream, began: float, machines: Machines
) -> RunPlan:
    """Build or find what the scenario needs, and decide what it left open.

    ``machines``: where the run will be.  ``began``: when the command began, by ``time.monotonic()``.
    """
    machines.demand(scenario)
    demand_architecture(scenario)
    demand_firmware(scenario)
    own_image = _look_at_own_image(scenario, tools)
    login = _look_at_login(scenario)
    _look_at_own_program(scenario)
    toolchain = Toolchain(events=events, qemu_source=tools.qemu_source)
    with events.step("prepare") as step:
        injection = injection_of(tools.fault)
        if tools.kernel is not None and "/" in tools.kernel:
            # What the user names is looked at before anything of ours is built.
            toolchain.kernel(tools.kernel, scenario.guest.kernel_config)
        own = machines.own_qemus(toolchain)
        source, destination = _qemus(toolchain, tools, scenario.arm, injection, own)
        kernel = toolchain.kernel(tools.kernel or "default", scenario.guest.kernel_config)
        image, disk = _image(scenario, toolchain, kernel, injection, own_image)
        binaries = Binaries(source, destination, kernel)
        resolved, reason = machines.resolve(scenario, binaries, toolchain.cache, events)
        board = None
        if machines.local:
            board = demand_board(resolved.scenario, binaries.qemus, resolved.accelerator)
            demand_globals(resolved.scenario, binaries.qemus)
        if resolved.accelerator == "tcg" and source.version_tuple < _DIRTY_LOG_RIGHT:
            events.emit("message", text=_LOSES_WRITES.format(version=source.version))
        devices = resolved.scenario.guest.all_devices
        machine = resolved.scenario.guest.machine
        facts = device_facts(
            binaries.qemus,
            resolved.accelerator,
            machine,
            remote=not machines.local,
            own_kernel=machines.own_kernel,
        )
        demand_devices(devices, facts, place_in(scenario))
        device_modules = None
        names = [name for device in devices for name in device.guest_modules]
        names += own_modules(resolved.scenario, kernel, distribution=disk is not None and disk.distribution)
        # A distribution finds and loads its modules by itself.
        if names and (disk is None or not disk.distribution):
            demand_modules(devices, kernel, place_in(scenario))
            device_modules = toolchain.device_modules(kernel, names)
        wanted = dict.fromkeys(name for device in devices for name in device.host_programs)
        if login is not None:
            # It gives the guest its address.
            wanted["dnsmasq"] = None
        programs = {name: toolchain.host_program(name) for name in wanted}
        if machines.local:
            demand_modes(resolved, binaries.qemus)
        resolved = decide_tap(resolved, source, local=machines.local)
        programs_for_guest = toolchain.guest_programs() if scenario.guest.own_image else None
        archive = _archive(toolchain, scenario)
        if scenario.workload.reads_disk and disk is None:
            disk = GuestDisk(toolchain.formula_disk(resolved.noise_bytes), private=False)
        if scenario.workload.writes_disk and disk is None and scenario.guest.work_disk is None:
            disk = GuestDisk(None, private=True, size=scenario.workload.disk_bytes)
        preload = _preload(toolchain, scenario)
        step.note(accelerator=resolved.accelerator, reason=reason, tap=resolved.scenario.tap)
        if board is not None and board.cpu_lacks:
            step.note(cpu_lacks=list(board.cpu_lacks))
    return RunPlan(
        resolved,
        tools,
        reason,
        source,
        destination,
        kernel,
        image,
        machines,
        began,
        injection,
        archive,
        disk,
        programs_for_guest,
        login,
        device_modules,
        programs,
        preload,
        toolchain.guest_firmware(scenario.guest.firmware),
        board,
    )


def _image(
    scenario: Scenario,
    toolchain: Toolchain,
    kernel: Kernel,
    injection: Injection,
    own: OwnImage | None,
) -> tuple[GuestImage, GuestDisk | None]:
    """What the guest boots from; a distribution has a disk, of which the run gets a copy."""
    if own is not None:
        size = own.path.stat().st_size
        made_of = GuestImage(own.path, file_digest(own.path), size)
        return made_of, GuestDisk(own.path, private=True, size=size, kind=own.kind, own=True)
    variant = "test" if injection.faulty_module else scenario.guest.module
    if (scenario.guest.image or scenario.workload.image) == "small":
        return toolchain.image(kernel, variant), None
    workload = scenario.workload
    if workload.reads_disk or workload.writes_disk:
        raise InputError(f"workload.kind: {workload.kind} has a disk of its own, guest.image=debian another")
    distribution = toolchain.distribution(kernel, variant)
    return distribution.image, GuestDisk(distribution.disk, private=True)


def _look_at_own_image(scenario: Scenario, tools: Tools) -> OwnImage | None:
    """The disk image that the scenario names, if it does; raises for what does not go together with it."""
    if not scenario.guest.own_image:
        return None
    if tools.kernel is not None:
        raise scenario.wrong("guest.kernel", "does not go together with an image that has its own")
    if injection_of(tools.fault).faulty_module:
        raise scenario.wrong(
            "guest.image", f"the fault {tools.fault} is in a module that is not in this image"
        )
    assert scenario.guest.image is not None
    try:
        return read_own_image(Path(scenario.guest.image))
    except InputError as error:
        raise scenario.wrong("guest.image", error.message, hint=error.hint) from error


def _look_at_login(scenario: Scenario) -> Login | None:
    """The files that ``guest.ssh`` names, read; before anything is built."""
    if scenario.guest.ssh is None:
        return None
    try:
        return read_login(scenario.guest.ssh)
    except LoginError as error:
        raise scenario.wrong(f"guest.ssh.{error.key}", error.message, hint=error.hint) from error


def _look_at_own_program(scenario: Scenario) -> None:
    """Before anything is built: what the guest could not start."""
    program = scenario.workload.own_program
    if program is None:
        return
    try:
        demand_static_program(program)
    except InputError as error:
        raise scenario.wrong("workload.program", error.message, hint=error.hint) from error


def _archive(toolchain: Toolchain, scenario: Scenario) -> Path | None:
    """What the workload needs beside the guest's image."""
    if scenario.workload.needs_compiler:
        return toolchain.compile_archive()
    program = scenario.workload.own_program
    return None if program is None else toolchain.program_archive(program)


def _preload(toolchain: Toolchain, scenario: Scenario) -> Path | None:
    if scenario.guest.kvm_dirty != "bitmap-without-manual-protect":
        return None
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
        there or (toolchain.named_qemu(name) if name else None)
        for there, name in zip(own, (tools.source_qemu, tools.destination_qemu), strict=True)
    ]
    for qemu in named:
        if qemu is not None:
            qemu.require_arm(arm)
    source, destination = (qemu or toolchain.qemu_for(arm, injection.qemu_flavour) for qemu in named)
    for qemu in (source, destination):
        qemu.require_arm(arm)
    return source, destination
