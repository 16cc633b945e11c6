# SPDX-License-Identifier: GPL-2.0-or-later
"""What both QEMUs were told when their devices should have stood still, from the event stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from harness.devicestate.acted import ActedUpon
from harness.events import Event
from harness.migration.qmp import ACTED

#: From this status on QEMU sends its devices.  It holds its lock from before until they are sent, so that a
#: command of which it has told before this status is in them, and one that it takes afterwards may not be.
_DEVICES_LEAVE: Final = "device"
#: The primary NIC of a failover pair is asked for; its data has the device's id.
_UNPLUGGED: Final = "UNPLUG_PRIMARY"


def acted_upon(history: Sequence[Event], *, since: int) -> ActedUpon:
    """Commands that may have changed a machine.  ``since``: the first event of this migration.

    Of the source those after its devices had begun to leave, or after it had stopped for the last time where
    its QEMU has no status for that; and whatever lingers, as it has its effect when QEMU takes notice.
    Of the destination all of them: its devices wait to be loaded.
    """
    told = [event for event in history if event.seq >= since]
    source = [event for event in told if event.source == "source.qmp"]
    begin = next((event.seq for event in source if _status(event) == _DEVICES_LEAVE), None)
    if begin is None:
        begin = max((event.seq for event in source if event.kind == "STOP"), default=since)
    late = (event for event in source if event.seq > begin or event.data.get("lingers"))
    there = [_command(one) for one in told if one.kind == ACTED and one.source == "destination.qmp"]
    unplugged = tuple(_device(event) for event in source if event.kind == _UNPLUGGED)
    return ActedUpon(
        tuple(_command(event) for event in late if event.kind == ACTED),
        # It tells the guest of it, by an interrupt.
        (*there, *(f"the plugging in of {device}" for device in unplugged)),
        unplugged,
    )


def unplugs(history: Sequence[Event]) -> bool:
    """Whether QEMU unplugs a NIC of the guest for each migration, also for one that only describes it."""
    return any(event.kind == _UNPLUGGED for event in history)


def _status(event: Event) -> str | None:
    data = event.data.get("data")
    return str(data.get("status")) if event.kind == "MIGRATION" and isinstance(data, Mapping) else None


def _device(event: Event) -> str:
    data = event.data.get("data")
    return str(data.get("device-id")) if isinstance(data, Mapping) else ""


def _command(event: Event) -> str:
    return str(event.data.get("command"))
