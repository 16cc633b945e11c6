# SPDX-License-Identifier: GPL-2.0-or-later
"""A display."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser

_MODELS: Final = {"std": "VGA", "cirrus": "cirrus-vga", "virtio": "virtio-vga", "qxl": "qxl-vga"}


class Vga(Device):
    """A display, with memory of its own, which is migrated and compared as well.

    The guest writes to that memory without a driver.
    """

    device: Literal["vga"] = "vga"
    """Which device."""
    model: Literal["std", "cirrus", "virtio", "qxl"] = "std"
    """Which display."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's name of the model."""
        return (_MODELS[self.model],)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The display; nobody looks at it."""
        return ("-device", f"{_MODELS[self.model]},id={context.name},{context.place}")

    def boarding(self, guest: DeviceUser) -> None:
        """A pattern is written to its memory."""
        guest.use("vram", "fill", guest.context.pci_address, _seed(guest))

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The pattern is there, and another one can be written and read."""
        guest.use("vram", "check", guest.context.pci_address, _seed(guest))
        return ()


def _seed(guest: DeviceUser) -> int:
    return guest.context.guest.int & 0xFFFF_FFFF
