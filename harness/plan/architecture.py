# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests of another architecture than this machine's cannot have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.arch import GUEST, HOST, Architecture

if TYPE_CHECKING:
    from harness.scenario.load import Scenario


def demand_architecture(scenario: Scenario, guest: Architecture = GUEST, host: Architecture = HOST) -> None:
    """Raise :class:`harness.errors.InputError` for what only guests of the machine's own kind have."""
    if guest is host:
        return
    where, workload = f"for guests on {guest.name} on this {host.name} machine", scenario.workload
    if scenario.accelerator == "kvm":
        raise scenario.wrong("accelerator", f"there is no KVM {where}", hint="leave it out")
    if workload.needs_compiler:
        raise scenario.wrong("workload.kind", f"there is no workload {workload.kind} {where}")
    if (image := scenario.guest.image or workload.image) != "small":
        raise scenario.wrong("guest.image", f"there is no guest.image {image} {where}")
    if scenario.guest.kernel == "debug":
        raise scenario.wrong("guest.kernel", f"there is no debug kernel {where}")
    if scenario.guest.firmware != "seabios":
        raise scenario.wrong("guest.firmware", f"there is no firmware {scenario.guest.firmware} {where}")
    if scenario.guest.devices:
        raise scenario.wrong("guest.devices", f"no device of a scenario was tried {where}")
