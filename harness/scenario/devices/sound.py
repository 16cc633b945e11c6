# SPDX-License-Identifier: GPL-2.0-or-later
"""A sound controller."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser

_MODELS: Final = {"hda": "intel-hda", "ich9": "ich9-intel-hda"}


class Sound(Device):
    """A sound controller with a codec; what is played goes nowhere.

    The guest asks the codec without a driver, and sets its volume.
    """

    device: Literal["sound"] = "sound"
    """Which device."""
    model: Literal["hda", "ich9"] = "hda"
    """Which controller."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """Controller and codec."""
        return (_MODELS[self.model], "hda-duplex")

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The controller, its codec, and where the sound goes."""
        name = context.name
        return (
            *("-audiodev", f"none,id={name}-audio"),
            *("-device", f"{_MODELS[self.model]},id={name},{context.place}"),
            *("-device", f"hda-duplex,bus={name}.0,cad=0,audiodev={name}-audio"),
        )

    def boarding(self, guest: DeviceUser) -> None:
        """Its codec answers, and its volume is set."""
        guest.use("hda", "begin", guest.context.pci_address)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """Its codec answers, and has kept the volume."""
        guest.use("hda", "check", guest.context.pci_address)
        return ()
