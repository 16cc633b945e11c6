# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports whose other end is the testbed's, which sends back what the guest sends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal
from uuid import uuid5

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser


class _Port(Device):
    """What they have in common."""

    needs_lab = True
    #: What the guest calls such a port, without its number.
    prefix: ClassVar[str]

    device: str
    """Which device."""

    def echoes(self, context: DeviceContext) -> Iterable[Path]:
        """Its other end."""
        return (context.socket(self.device),)

    def _chardev(self, context: DeviceContext) -> str:
        return f"socket,id={context.name}-port,path={context.socket(self.device)}"

    def _exchange(self, guest: DeviceUser, occasion: str) -> None:
        nonce = uuid5(guest.context.guest, f"{self.device} {occasion}").hex
        guest.use("tty", guest.context.pci_address, self.prefix, nonce)

    def boarding(self, guest: DeviceUser) -> None:
        """What the guest sends comes back."""
        self._exchange(guest, "boarding")

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """What the guest sends comes back."""
        self._exchange(guest, guest.context.host)
        return ()


class Serial(_Port):
    """A serial port beside the two that every guest has, on the PCI bus."""

    qemu_device = "pci-serial"
    prefix = "ttyS"
    most = 4

    device: Literal["serial"] = "serial"
    """Which device."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The port, and the socket that it leads to."""
        return (
            *("-chardev", self._chardev(context)),
            *("-device", f"pci-serial,id={context.name},chardev={context.name}-port,{context.place}"),
        )


class VirtioConsole(_Port):
    """A console of virtio's (virtconsole)."""

    qemu_device = "virtconsole"
    prefix = "hvc"

    device: Literal["console"] = "console"
    """Which device."""

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver."""
        return ("virtio_console",)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The controller, a port of it, and the socket that it leads to."""
        name = context.name
        return (
            *("-chardev", self._chardev(context)),
            *("-device", f"virtio-serial-pci,id={name},max_ports=4,{context.place}"),
            *("-device", f"virtconsole,id={name}-console,bus={name}.0,chardev={name}-port"),
        )

    def _exchange(self, guest: DeviceUser, occasion: str) -> None:
        # The kernel has its hvc ports on no bus: the first one is ours.
        nonce = uuid5(guest.context.guest, f"{self.device} {occasion}").hex
        guest.use("tty", "-", "hvc0", nonce)
