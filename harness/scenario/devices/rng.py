# SPDX-License-Identifier: GPL-2.0-or-later
"""A source of random numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser


class Rng(Device):
    """A source of random numbers (virtio-rng)."""

    qemu_device = "virtio-rng-pci"

    device: Literal["rng"] = "rng"
    """Which device."""
    load: bool = False
    """Have the guest read it all the time: the device, and not a vCPU, then writes to memory."""
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """It gives at most so many bytes in a period; null: as many as are wanted."""
    period_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    """The period of `max_bytes`, in milliseconds."""

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver."""
        return ("virtio_rng",)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The random numbers are QEMU's own."""
        limit = f",max-bytes={self.max_bytes},period={self.period_ms}" if self.max_bytes else ""
        return (
            *("-object", f"rng-builtin,id={context.name}-rng"),
            *("-device", f"virtio-rng-pci,id={context.name},rng={context.name}-rng,{context.place}{limit}"),
        )

    def boarding(self, guest: DeviceUser) -> None:
        """It gives bytes."""
        guest.use("rng", "begin", *(["load"] if self.load else []))

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """It gives bytes, which are others each time; who reads all the time goes on."""
        guest.use("rng", "check")
        return ()
