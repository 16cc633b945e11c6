# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's NICs: the model of each, its queues, and who serves it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field

from harness.errors import InputError, MachineryError
from harness.scenario.devices.base import (
    ArrivedGuest,
    Device,
    DeviceContext,
    DeviceFacts,
    DeviceUser,
    HelperProgram,
    NicLink,
    Plugged,
    demand_slot,
)
from harness.scenario.devices.mirror import Mirror

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
#: So many networks a lab has.
MOST_NICS: Final = 4


class ListedNic(Device):
    """A NIC of the guest's. All of its queues have to carry datagrams, on both hosts."""

    needs_lab = True
    most = MOST_NICS

    device: Literal["nic"] = "nic"
    """Which device."""
    model: Literal["virtio", "e1000e", "e1000", "rtl8139", "vmxnet3"] = "virtio"
    """Which NIC. Debian's cloud kernel drives virtio and vmxnet3."""
    queues: Annotated[int, Field(ge=1, le=16)] = 1
    """Pairs of queues, of virtio's; there must be as many vcpus."""
    backend: Literal["tap", "vhost-user"] = "tap"
    """Who serves it. tap: QEMU, or with guest.vhost the host's kernel. vhost-user: QEMU's vhost-user-bridge,
    a process that reads and writes the guest's memory; for virtio with one pair of queues."""
    plugged: Plugged = "always"
    """When it is there. always: all the time. at-boot: until a script unplugs it (device-del). later: from
    when a script plugs it in (device-add). For machine type pc."""

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
    def comes_later(self) -> bool:
        """Whether a script plugs it in; then the guest has no network before."""
        return self.plugged == "later"

    @property
    def only_of_one_guest(self) -> str | None:
        """One that is served apart has ports of the lab's."""
        return "the lab has ports for one bridge (backend: vhost-user)" if self.served_apart else None

    @property
    def served_apart(self) -> bool:
        """Whether another process than QEMU serves it, and gets its frames as datagrams."""
        return self.backend == "vhost-user"

    def demand(self, facts: DeviceFacts) -> None:
        """Refuse what does not go together."""
        super().demand(facts)
        demand_slot(self, self.plugged, facts)
        if self.served_apart and self.plugged != "always":
            raise InputError(f"guest.devices: nic: plugged: {self.plugged} is for a NIC on a tap")
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

    def title(self, context: DeviceContext) -> str:
        """With its number, from the second one on."""
        return f"nic {context.link.number}" if context.link is not None and context.link.number else "nic"

    def _exchange(self, guest: DeviceUser, link: NicLink) -> None:
        with Mirror(link.lab) as (address, port):
            guest.use("nic", "echo", link.mac, address, port, self.queues)

    def boarding(self, guest: DeviceUser) -> None:
        """All queues carry datagrams; a second one, or one that came later, has no address yet."""
        link = _link(guest)
        if self.comes_later or link.number:
            guest.use("nic", "join", link.mac, link.address, link.prefix)
        self._exchange(guest, link)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """All queues carry datagrams, and its network knows where it is; one without a link says so."""
        link = _link(guest)
        carrier = guest.use("nic", "carrier", link.mac)
        if link.up != (carrier == "01"):
            there = "has a link, and a script had taken it down" if carrier == "01" else "has no link"
            yield f"on the {guest.context.host} it {there}"
        elif link.up:
            self._exchange(guest, link)
            # A bridge announces by itself, in its own way.
            if not self.served_apart and not guest.is_announced():
                yield f"the {guest.context.host}'s QEMU has not announced it to its network (RARP)"

    def bridge_socket(self, context: DeviceContext) -> str | None:
        """Where QEMU finds who serves it; None: QEMU serves it itself."""
        return str(context.socket(_SOCKET)) if self.served_apart else None


def _link(guest: DeviceUser) -> NicLink:
    link = guest.context.link
    if link is None:
        raise MachineryError("nothing is known of the network of a NIC")
    return link
