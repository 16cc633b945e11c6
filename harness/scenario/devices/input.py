# SPDX-License-Identifier: GPL-2.0-or-later
"""Keyboards, mice and tablets of virtio's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser

#: What is done to each of them: QMP's words for it.
EVENTS: Final[Mapping[str, Sequence[Mapping[str, object]]]] = {
    "keyboard": tuple(
        {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": "f9"}}}
        for down in (True, False)
    ),
    "mouse": ({"type": "rel", "data": {"axis": "x", "value": 5}},),
    "tablet": tuple(
        {"type": "abs", "data": {"axis": axis, "value": value}} for axis, value in (("x", 4711), ("y", 815))
    ),
}


def touch(guest: ArrivedGuest, name: str, kind: str) -> None:
    """Press, push or point, and wait until the guest has noticed; ``name`` is the reader's in the guest."""
    before = int.from_bytes(bytes.fromhex(guest.use("input", "count", name)), "little")
    guest.execute("input-send-event", {"events": list(EVENTS[kind])})
    guest.use("input", "wait", name, before)


class VirtioInput(Device):
    """A keyboard, mouse or tablet of virtio's. What the host does to it reaches the guest."""

    device: Literal["input"] = "input"
    """Which device."""
    kind: Literal["keyboard", "mouse", "tablet"] = "keyboard"
    """What it is."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's name of it."""
        return (f"virtio-{self.kind}-pci",)

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver, and who gives its events to programs."""
        return ("virtio_input", "evdev")

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The device."""
        return ("-device", f"virtio-{self.kind}-pci,id={context.name},{context.place}")

    def boarding(self, guest: DeviceUser) -> None:
        """A process in the guest reads its events."""
        guest.use("input", "begin", guest.context.name, guest.context.pci_address)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """What the host does to it reaches that process."""
        touch(guest, guest.context.name, self.kind)
        return ()
