# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells the host that the guest has panicked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceError, DeviceUser

_LOADED: Final = "GUEST_CRASHLOADED"


class PvPanic(Device):
    """What tells the host that the guest has panicked (pvpanic-pci).

    The guest uses it without a driver.
    """

    qemu_device = "pvpanic-pci"

    device: Literal["pvpanic"] = "pvpanic"
    """Which device."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """It knows all events."""
        return ("-device", f"pvpanic-pci,id={context.name},{context.place}")

    def boarding(self, guest: DeviceUser) -> None:
        """It says which events it knows."""
        guest.use("pvpanic", "begin", guest.context.pci_address)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The guest says that a crash kernel was loaded, which does it no harm; QEMU has to hear it."""
        guest.use("pvpanic", "check", guest.context.pci_address)
        if not guest.wait_for(_LOADED):
            raise DeviceError("QEMU has not heard that the guest loaded a crash kernel", silent=True)
        return ()
