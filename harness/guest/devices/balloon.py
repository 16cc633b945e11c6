# SPDX-License-Identifier: GPL-2.0-or-later
"""The balloon, which is the device under test."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.guest.devices.base import DomainDevice

Arm: TypeAlias = Literal["off", "hint", "info"]

_IOTHREAD: Final = "freepage-hint"
_BALLOON: Final = "virtio-balloon-device"


@dataclass(frozen=True, slots=True)
class BalloonDevice(DomainDevice):
    """The device under test: which arm, and what the oracle needs of it.

    ``hold`` names the points at which the device stops the guest for the harness
    (``request``, ``answer``); ``record`` is the file that QEMU keeps of the migration for the oracle.
    """

    arm: Arm
    hold: tuple[str, ...] = ()
    record: Path | None = None

    def elements(self) -> Iterator[ET.Element]:
        """The device, as every guest has one."""
        yield ET.Element("memballoon", {"model": "virtio"})

    def arguments(self) -> Iterator[str]:
        """The QEMU arguments that make the balloon device what the arm needs."""
        properties: list[str] = []
        if self.arm == "hint":
            # Upstream's hint wants a thread of its own: it takes blocks while the guest runs.
            yield from ("-object", f"iothread,id={_IOTHREAD}")
            properties += [f"iothread={_IOTHREAD}", "free-page-hint=on"]
        elif self.arm == "info":
            properties.append("free-page-info=on")
            if self.hold:
                properties.append(f"x-free-page-info-hold={','.join(self.hold)}")
        for text in properties:
            # -global takes the rest of its argument as the value: a comma needs no doubling.
            yield from ("-global", f"{_BALLOON}.{text}")
        if self.record is not None:
            # What is sent, and what any arm leaves out.
            yield from ("-global", f"migration.x-record={self.record}")
