# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a run's guest may go on from a file, instead of being booted: decided here, and nowhere else.

What is kept is a guest that has just said that it is ready: its memory, and the state of QEMU's devices.
Whatever else such a guest has (a disk, a helper's process, words that nobody has looked at) is in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness import accel
from harness.arch import GUEST, X86_64

if TYPE_CHECKING:
    from harness.plan.plan import RunPlan

#: Faults of code that restoring a guest does not run, or not on what is kept; all others would be at work
#: before the migration that they are about.
SLEEPING_KINDS: Final = frozenset({"dirty-log", "bitmap", "harmless", "translation", "protocol"})


def why_cold(plan: RunPlan) -> str | None:
    """Why this guest has to be booted, in words; None: it may go on from a file."""
    return next(_reasons(plan), None)


def _reasons(plan: RunPlan) -> Iterator[str]:
    scenario = plan.resolved.scenario
    guest = scenario.guest
    if not plan.machines.local or accel.chain() is not None:
        yield "it runs on other machines"
    if plan.resolved.accelerator != "tcg":
        yield "KVM boots it as fast, and keeps clocks of its own for it"
    if scenario.guests > 1:
        yield "there are several guests, each with an address of its own"
    if GUEST is not X86_64:
        yield "only guests for x86_64 are kept"
    if guest.firmware != "seabios":
        yield f"guest.firmware: {guest.firmware} has variables"
    if plan.disk is not None:
        yield "it has a disk, which goes on as well"
    if guest.all_devices:
        yield f"it has devices of its own (guest.devices): {guest.all_devices[0].device}"
    if guest.memory_backend is not None or guest.hugepages or guest.shared is not None:
        yield "its memory is in no file of the lab's, or in one of both hosts"
    if guest.virtio_mem is not None:
        yield "guest.virtio_mem: its memory comes and goes"
    if guest.as_written:
        yield f"{next(iter(guest.as_written))} is a word for QEMU or libvirt that nobody has looked at"
    if plan.tools.qemu_files or plan.tools.qemu_source is not None:
        # What it does wrong has to come to a verdict, and not keep a guest from being there.
        yield "a QEMU of the user's may restore it wrongly"
    if plan.injection.faulty_module:
        yield "the fault is chosen when the guest boots"
    if plan.tools.fault is not None and not plan.injection.faulty_module:
        yield from _of_fault(plan.tools.fault)


def _of_fault(name: str) -> Iterator[str]:
    from harness.faults.catalogue import catalogue

    kind = catalogue().find(name).kind
    if kind not in SLEEPING_KINDS:
        yield f"the fault may be at work while a guest is restored (kind: {kind})"
