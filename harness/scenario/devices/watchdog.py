# SPDX-License-Identifier: GPL-2.0-or-later
"""A watchdog."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceError, DeviceUser

_BITES: Final = "WATCHDOG"


class Watchdog(Device):
    """A watchdog (i6300esb), which the guest pets throughout. QEMU tells when it bites, and does no more."""

    qemu_device = "i6300esb"

    device: Literal["watchdog"] = "watchdog"
    """Which device."""

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver, which Debian's cloud kernel has not."""
        return ("i6300esb",)

    def xml(self, context: DeviceContext) -> ET.Element:
        """Libvirt has to know of it: 9.0 ends by SIGSEGV when a watchdog bites of which it does not."""
        element = ET.Element("watchdog", {"model": "i6300esb", "action": "none"})
        place = {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": f"{context.slot:#04x}"}
        ET.SubElement(element, "address", {**place, "function": "0x0"})
        return element

    def boarding(self, guest: DeviceUser) -> None:
        """The guest opens and pets it."""
        guest.use("watchdog", "begin")

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """It can still be petted, and bites when it is not."""
        guest.use("watchdog", "neglect")
        if not guest.wait_for(_BITES):
            raise DeviceError("the watchdog does not bite when nobody pets it", silent=True)
        guest.use("watchdog", "pet")
        return ()
