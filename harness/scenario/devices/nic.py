# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's NIC: its model, its queues, and who serves it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Annotated, Final, Literal

from pydantic import Field

from harness.errors import InputError
from harness.scenario.devices.base import (
    ArrivedGuest,
    Device,
    DeviceContext,
    DeviceFacts,
    DeviceUser,
    HelperProgram,
)

_BRIDGE: Final = "vhost-user-bridge"
_SOCKET: Final = "nic.sock"
#: QEMU's names of the models, and the guest's modules.
_MODELS: Final = {
    "virtio": ("virtio-net-pci", "virtio_net"),
    "e1000e": ("e1000e", "e1000e"),
    "e1000": ("e1000", "e1000"),
    "rtl8139": ("rtl8139", "8139cp"),
    "vmxnet3": ("vmxnet3", "vmxnet3"),
}
#: The ports of the lab's relay, and of who is in QEMU's place (harness/hosts/netns.py).
_RELAY_PORT, _OWN_PORT = 7001, 7002
#: The lab's end of the guest's segment.
_LAB: Final = "10.77.0.1"


class ListedNic(Device):
    """The guest's NIC. All of its queues have to carry datagrams, on both hosts."""

    needs_lab = True

    device: Literal["nic"] = "nic"
    """Which device."""
    model: Literal["virtio", "e1000e", "e1000", "rtl8139", "vmxnet3"] = "virtio"
    """Which NIC. Debian's cloud kernel drives virtio and vmxnet3."""
    queues: Annotated[int, Field(ge=1, le=16)] = 1
    """Pairs of queues, of virtio's; there must be as many vcpus."""
    backend: Literal["tap", "vhost-user"] = "tap"
    """Who serves it. tap: QEMU, or with guest.vhost the host's kernel. vhost-user: QEMU's vhost-user-bridge,
    a process that reads and writes the guest's memory; for virtio with one pair of queues."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's name of the model."""
        return (_MODELS[self.model][0],)

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver."""
        return (_MODELS[self.model][1],)

    @property
    def host_programs(self) -> tuple[str, ...]:
        """Who serves vhost-user."""
        return (_BRIDGE,) if self.backend == "vhost-user" else ()

    @property
    def served_apart(self) -> bool:
        """Whether another process than QEMU serves it, and gets its frames as datagrams."""
        return self.backend == "vhost-user"

    def demand(self, facts: DeviceFacts) -> None:
        """Refuse what does not go together."""
        super().demand(facts)
        if self.queues > 1 and (self.model != "virtio" or self.served_apart):
            raise InputError(f"guest.devices: nic: queues: {self.queues} are for virtio on a tap")
        if self.served_apart and self.model != "virtio":
            raise InputError(f"guest.devices: nic: backend: vhost-user serves virtio, not {self.model}")

    def helpers(self, context: DeviceContext) -> Iterable[HelperProgram]:
        """The bridge, between QEMU and the lab's relay.

        It is the one that connects: where it listens, a frame that comes before QEMU ends it (docs/found.md).
        """
        if self.served_apart:
            ports = ("-l", f"127.0.0.1:{_OWN_PORT}", "-r", f"127.0.0.1:{_RELAY_PORT}")
            path = context.socket(_SOCKET)
            yield HelperProgram(_BRIDGE, (*ports, "-c", "-u", str(path)), path, connects=True, talks=True)

    def _exchange(self, guest: DeviceUser) -> None:
        with _Mirror() as port:
            guest.use("nic", "echo", _LAB, port, self.queues)

    def boarding(self, guest: DeviceUser) -> None:
        """All queues carry datagrams."""
        self._exchange(guest)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """All queues carry datagrams."""
        self._exchange(guest)
        return ()

    def bridge_socket(self, context: DeviceContext) -> str | None:
        """Where QEMU finds who serves it; None: QEMU serves it itself."""
        return str(context.socket(_SOCKET)) if self.served_apart else None


class _Mirror:
    """Context manager: sends datagrams back to whoever sent them; it gives its port."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._reflect, name="mirror", daemon=True)

    def __enter__(self) -> int:
        self._socket.bind((_LAB, 0))
        self._thread.start()
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An empty datagram of our own ends the thread.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _reflect(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(2048)
            if not data:
                return
            self._socket.sendto(data, sender)
