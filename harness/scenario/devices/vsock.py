# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets between guest and host, without a network."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceError, DeviceUser

_DEVICE: Final = "/dev/vhost-vsock"
_PORT: Final = 7777
#: How long the guest, which may be emulated, may take to answer.
_SECONDS: Final = 30.0
#: Context ids below this one have meanings of their own.
_FIRST_CID: Final = 3


class Vsock(Device):
    """Sockets between guest and host (vhost-vsock), which the host's kernel serves.

    A program in the guest listens all the time, and answers the host on both sides. The guest has another
    context id on each host, since both are on one kernel.
    """

    qemu_device = "vhost-vsock-pci"
    machine_files = {_DEVICE: "vhost_vsock"}  # noqa: RUF012 - as the base class has it
    needs_lab = True

    device: Literal["vsock"] = "vsock"
    """Which device."""

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver."""
        return ("vmw_vsock_virtio_transport",)

    def _cid(self, context: DeviceContext) -> int:
        return _FIRST_CID + (context.uuid(each_host=True).int & 0x3FFF_FFFF)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The device."""
        words = f"vhost-vsock-pci,id={context.name},guest-cid={self._cid(context)},{context.place}"
        return ("-device", words)

    def _exchange(self, guest: DeviceUser) -> None:
        """The host calls the guest; raises where nobody answers, or wrongly."""
        word = guest.context.uuid(each_host=True).bytes
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as line:
            line.settimeout(_SECONDS)
            try:
                line.connect((self._cid(guest.context), _PORT))
                line.sendall(word)
                back = b""
                while len(back) < len(word) and (piece := line.recv(len(word) - len(back))):
                    back += piece
            except OSError as error:
                raise DeviceError(f"the guest does not answer: {error}", silent=True) from error
        if back != word[::-1]:
            raise DeviceError("the guest does not send back what it was sent")

    def boarding(self, guest: DeviceUser) -> None:
        """A program listens, and is called."""
        guest.use("vsock", "begin", _PORT)
        self._exchange(guest)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The same program answers, by the id that the guest has now."""
        guest.use("vsock", "check", self._cid(guest.context))
        self._exchange(guest)
        return ()
