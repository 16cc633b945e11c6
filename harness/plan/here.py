# SPDX-License-Identifier: GPL-2.0-or-later
"""A run whose two hosts are a lab on this machine."""

from __future__ import annotations

from harness import accel
from harness.events import EventStream
from harness.hosts.this_machine import memory_available
from harness.scenario.load import Scenario
from harness.scenario.resolve import MachineFacts, Resolved, resolve
from harness.toolchain import Kernel, QemuBinary, Toolchain


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
