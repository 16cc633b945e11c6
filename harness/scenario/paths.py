# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a scenario names: their whole paths, so that the scenario means the same wherever it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.scenario.devices import Device
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.model import Scenario

#: Keys of the guest's that are a name, or the path of a file.
_KEYS = ("image", "kernel", "firmware")


def with_whole_paths(scenario: Scenario) -> Scenario:
    """The same scenario, whose relative paths begin where this process is.

    It is written into run folders, and read again from there, by whoever makes the run again.
    """
    guest = scenario.guest
    update: dict[str, object] = {key: _whole(getattr(guest, key)) for key in _KEYS}
    if guest.ssh is not None:
        whole = {key: _whole(getattr(guest.ssh, key)) for key in guest.ssh.files}
        update["ssh"] = guest.ssh.model_copy(update=whole)
    update |= {"devices": _of(guest.devices), "disks": _of(guest.disks)}
    if all(getattr(guest, key) == value for key, value in update.items()):
        return scenario
    return scenario.model_copy(update={"guest": guest.model_copy(update=update)})


def _whole(text: str | None) -> str | None:
    return text if text is None or "/" not in text else str(Path(text).absolute())


def _of(devices: Iterable[Device]) -> tuple[Device, ...]:
    return tuple(
        device.model_copy(update={"contents": _whole(device.contents)})
        if isinstance(device, ListedDisk)
        else device
        for device in devices
    )
