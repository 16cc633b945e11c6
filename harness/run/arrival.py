# SPDX-License-Identifier: GPL-2.0-or-later
"""After the guest was resumed on its new host: what the scenario's devices find there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.migration.qmp import Monitor
from harness.scenario.devices import Device, DeviceContext
from harness.verdict.finding import Finding

#: For all devices of a guest together, which may be emulated.
ARRIVAL_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class GuestOnDestination:
    """The guest on its new host; see :class:`harness.scenario.devices.ArrivedGuest`."""

    context: DeviceContext
    control: GuestControl
    monitor: Monitor
    deadline: Deadline

    def call(self, verb: str, *words: str | int) -> Mapping[str, object]:
        """Have the guest's agent do something; what it answers."""
        return self.control.call(verb, *words, deadline=self.deadline)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Have the destination's QEMU do something; what it answers."""
        return self.monitor.execute(command, dict(arguments or {}), seconds=self.deadline.timeout())


def look_at_devices(
    devices: Sequence[Device],
    context: DeviceContext,
    control: GuestControl,
    monitor: Monitor,
    events: EventStream,
) -> list[Finding]:
    """Have each device look at itself; what is wrong, as findings of the rule ``device-WORD``.

    Raises :class:`harness.errors.GuestLost` if the guest does not answer one of them.
    """
    if not devices:
        return []
    findings: list[Finding] = []
    with events.step("devices") as step:
        guest = GuestOnDestination(
            context, control, monitor, Deadline(ARRIVAL_SECONDS, "a look at the guest's devices")
        )
        for device in devices:
            rule = f"device-{device.device}"
            findings += [Finding(rule, "guest", text) for text in device.arrived(guest)]
        step.note(devices=[device.device for device in devices], findings=len(findings))
    return findings
