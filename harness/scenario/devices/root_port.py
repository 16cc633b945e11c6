# SPDX-License-Identifier: GPL-2.0-or-later
"""A port of PCI Express."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser

_CONFIG: Final = "config"
#: Libvirt numbers the ports that it makes by itself from one.
_FIRST_CHASSIS: Final = 200


class RootPort(Device):
    """A port of PCI Express (pcie-root-port), for devices that are plugged in. For machine type q35."""

    qemu_device = "pcie-root-port"
    needs_pcie = True
    most = 4

    device: Literal["root-port"] = "root-port"
    """Which device."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """An empty port."""
        chassis = _FIRST_CHASSIS + context.number
        return ("-device", f"pcie-root-port,id={context.name},chassis={chassis},{context.place}")

    def boarding(self, guest: DeviceUser) -> None:
        """What its configuration is."""
        guest.notes[_CONFIG] = guest.use("config", "read", guest.context.pci_address)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """It answers, with the configuration that it had."""
        now = guest.use("config", "read", guest.context.pci_address)
        if now != guest.notes[_CONFIG]:
            yield f"its configuration was {guest.notes[_CONFIG]}, and is {now}"
