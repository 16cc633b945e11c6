# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario with everything decided that it leaves open."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal

from harness.errors import InputError
from harness.scenario.devices.base import address_of
from harness.scenario.guest import LEAST_MEMORY
from harness.scenario.model import Scenario, noise_bytes
from harness.scenario.script import actions
from harness.scenario.values import MIB
from harness.units import format_size

#: Beside the RAM of both sides: two QEMUs, two daemons, and the oracle's arrays.
HOST_MARGIN = 512 * MIB
#: The same for each further guest: two QEMUs, and the arrays of its oracle.
GUEST_MARGIN = 256 * MIB


def host_margin(scenario: Scenario) -> int:
    """What a run takes beside its guests' RAM, in bytes."""
    return HOST_MARGIN + (scenario.guests - 1) * GUEST_MARGIN


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What :func:`resolve` must know of the machine that runs both hosts."""

    memory_available: int
    kvm_usable: bool = False
    kvm_reason: str = ""
    """Why, in words: "no /dev/kvm", "a probe guest did not start within 20 s"."""


@dataclass(frozen=True, slots=True)
class ResolvedScenario:
    """A scenario with nothing left open: the same one always gives the same run."""

    scenario: Scenario
    seed: int
    noise_bytes: int
    accelerator: Literal["kvm", "tcg"]

    def load_words(self) -> tuple[str, ...]:
        """The arguments of the guest's ``load``."""
        words = self.scenario.workload.load_words(self.seed, self.noise_bytes)
        disk = self.scenario.guest.work_disk if self.scenario.workload.writes_disk else None
        if disk is not None:
            return (*words, f"at={address_of(self.scenario.guest.machine, disk)}")
        return words


def demand_memory(scenario: Scenario, available: int) -> None:
    """Raise :class:`InputError` unless both sides' guests fit into ``available`` bytes."""
    memory, guests, margin = scenario.guest.all_memory, scenario.guests, host_margin(scenario)
    # What is in no file is copied once the guest has left.
    needed = scenario.memory_of_both + scenario.copied_memory + margin
    if needed > available:
        most = (available - margin) // (2 * guests) // (64 * MIB) * (64 * MIB)
        advice = f"at most --memory {format_size(most)} fits now" if most >= LEAST_MEMORY else None
        if advice is None and guests > 1:
            advice = "fewer guests need less: --set guests=N"
        of_each = "" if guests == 1 else f", for each of {guests} guests,"
        raise InputError(
            f"guest.memory: {format_size(memory)}{of_each} does not fit: source and destination together "
            f"need {needed // MIB} MiB, of which {available // MIB} MiB are available",
            hint=advice,
        )


def demand_accelerator(scenario: Scenario, accelerator: str) -> None:
    """Raise :class:`InputError` for what ``accelerator`` cannot do; of ``auto`` nothing is known yet."""
    if accelerator == "tcg" and scenario.guest.kvm_dirty != "bitmap":
        raise InputError(
            f"guest.kvm_dirty: {scenario.guest.kvm_dirty} is one of KVM's ways, and this guest is emulated",
            hint="add --nested: in the machine around it there is KVM",
        )
    if accelerator == "tcg" and any(action.needs_kvm for action in actions(scenario.script)):
        word = next(action.action for action in actions(scenario.script) if action.needs_kvm)
        raise InputError(
            f"script: {word}: without KVM a QEMU never says that a vCPU is gone, and libvirt waits for that "
            "(docs/found.md)",
            hint="add --nested: in the machine around it there is KVM",
        )
    if accelerator == "tcg" and scenario.guest.vhost:
        raise InputError(
            "guest.vhost: libvirt lets the kernel serve NICs of guests under KVM, and this guest is emulated",
            hint="add --nested: in the machine around it there is KVM",
        )


def resolve(scenario: Scenario, machine: MachineFacts) -> ResolvedScenario:
    """Fill in what the file left open, and refuse what this machine cannot do."""
    demand_memory(scenario, machine.memory_available)
    accelerator = scenario.accelerator
    if accelerator == "auto":
        accelerator = "kvm" if machine.kvm_usable else "tcg"
    elif accelerator == "kvm" and not machine.kvm_usable:
        reason = machine.kvm_reason or "it was not shown to run guests"
        raise InputError(f"accelerator: kvm cannot be used here: {reason}", hint="use tcg, or auto")
    demand_accelerator(scenario, accelerator)
    seed = secrets.randbits(63) if scenario.seed is None else scenario.seed
    noise = noise_bytes(scenario)
    workload = scenario.workload.with_noise(noise)
    update: dict[str, object] = {"seed": seed, "accelerator": accelerator, "workload": workload}
    return ResolvedScenario(scenario.model_copy(update=update), seed, noise, accelerator)
