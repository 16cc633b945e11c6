# SPDX-License-Identifier: GPL-2.0-or-later
"""What a result says of the devices: their state on both sides, and how the guest found them."""

from __future__ import annotations

import dataclasses

from harness.devicestate.compare import Comparison
from harness.report.part import Part


class DeviceDifference(Part):
    """A field of a device or vCPU that the destination has not as the source saved it."""

    device: str
    """QEMU's name of the section: the device's place and kind."""
    instance: int
    """Which one, of several with that name."""
    field: str
    """QEMU's name of the field; "byte N" where QEMU does not describe it."""
    source: str
    """The source's value."""
    destination: str
    """The destination's."""
    reason: str | None
    """Why it may differ; null: it must not."""
    changed: str = ""
    """Which side has no longer what was sent, by the migration's stream; empty: nobody has heard it."""


class Devices(Part):
    """The state of devices and vCPUs, as both QEMUs saved it at switch-over."""

    compared: int
    """Devices; 0: see not_compared."""
    bytes: int
    """Their state, altogether."""
    differences: list[DeviceDifference]
    """All fields that differ."""
    not_compared: str = ""
    """Why nothing was compared, or only a part; empty if all was."""

    @classmethod
    def of(cls, found: Comparison | str) -> Devices:
        """Build this from the comparison, or from the reason why there is none."""
        if isinstance(found, str):
            return cls(compared=0, bytes=0, differences=[], not_compared=found)
        differences = [DeviceDifference(**dataclasses.asdict(one)) for one in found.differences]
        return cls(
            compared=found.devices,
            bytes=found.bytes,
            differences=differences,
            not_compared=found.partly,
        )


class Liveness(Part):
    """How a device of the scenario's was after the last migration, when the guest used it."""

    device: str
    """Its name in the scenario."""
    answers: bool | None
    """Whether it did all that it was asked for; null: nobody asked it for anything."""
    did: list[str]
    """What the guest did with it."""
    wrong: list[str]
    """What was wrong."""
