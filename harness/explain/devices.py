# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of devices and vCPUs, as a run's result has it, for people."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.devices import DeviceDifference
from harness.report.result import Result


def device_lines(result: Result) -> Iterator[str]:
    """What was compared, then each device with fields that differ: what must not, and what may and why."""
    devices = result.devices
    if devices is None:
        yield "No device was looked at: the migration came to no switch-over, or the result is an older one."
        return
    if devices.not_compared and not devices.compared:
        yield f"No device was compared: {devices.not_compared}."
        return
    if devices.not_compared:
        yield f"{devices.compared} vCPUs were compared. {devices.not_compared.capitalize()}."
    else:
        yield f"{devices.compared} devices and vCPUs were compared, {devices.bytes} bytes of state."
    if not devices.differences:
        yield (
            "Every register is the same on both sides."
            if devices.not_compared
            else ("Every byte is the same on both sides.")
        )
    names = dict.fromkeys((one.device, one.instance) for one in devices.differences)
    for device, instance in names:
        yield device if instance == 0 else f"{device}[{instance}]"
        for one in devices.differences:
            if (one.device, one.instance) == (device, instance):
                yield f"    {_field(one)}"


def _field(one: DeviceDifference) -> str:
    why = "must be the same" if one.reason is None else one.reason
    who = f", not what was sent: the {one.changed}'s" if one.changed else ""
    return f"{one.field}: {one.source} -> {one.destination}{who} ({why})"
