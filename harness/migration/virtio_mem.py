# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtio-mem device of a QEMU: how much the guest is to have plugged in, and how much it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import MachineryError
from harness.events import Deadline, Event, EventStream
from harness.guest.devices.dimm import VIRTIO_MEM
from harness.migration.qmp import Monitor

_PATH: Final = f"/machine/peripheral/{VIRTIO_MEM}"
#: What QEMU says when it has changed.
_CHANGED: Final = "MEMORY_DEVICE_SIZE_CHANGE"


@dataclass(frozen=True, slots=True)
class PluggedMemory:
    """Bytes."""

    requested: int
    plugged: int


def read_virtio_mem(monitor: Monitor) -> PluggedMemory:
    """What the device says."""
    answer = monitor.execute("query-memory-devices")
    for device in answer if isinstance(answer, list) else []:
        data = device.get("data") if isinstance(device, Mapping) else None
        if isinstance(data, Mapping) and data.get("id") == VIRTIO_MEM:
            return PluggedMemory(int(data["requested-size"]), int(data["size"]))
    raise MachineryError(f"the {monitor.side} QEMU has no virtio-mem device: {answer!r}")


def resize_virtio_mem(monitor: Monitor, size: int) -> None:
    """Ask the guest for another size; returns at once."""
    monitor.execute("qom-set", {"path": _PATH, "property": "requested-size", "value": size})


def await_virtio_mem(monitor: Monitor, events: EventStream, deadline: Deadline) -> PluggedMemory:
    """Wait until the guest has plugged in what it is asked for; DeadlineExceeded if it does not."""
    source = f"{monitor.side}.qmp"

    def changed(event: Event) -> bool:
        return event.kind == _CHANGED and event.source == source

    while True:
        seen = len(events.history()) - 1
        now = read_virtio_mem(monitor)
        if now.plugged == now.requested:
            return now
        events.wait(changed, deadline, after=seen)
