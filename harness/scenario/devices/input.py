# SPDX-License-Identifier: GPL-2.0-or-later
"""Keyboards, mice and tablets of virtio's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser

#: Positions of a tablet, from one edge to the other (INPUT_EVENT_ABS_MAX).
_POSITIONS: Final = 0x8000


def events_for(kind: str, noticed: int) -> Sequence[Mapping[str, object]]:
    """What is done to one of them, in QMP's words; ``noticed``: events that the guest has had from it.

    Where a tablet points to differs each time: Linux drops a position that is the one before
    (input_handle_abs_event()).
    """
    if kind == "keyboard":
        key = {"type": "qcode", "data": "f9"}
        return [{"type": "key", "data": {"down": down, "key": key}} for down in (True, False)]
    if kind == "mouse":
        return [{"type": "rel", "data": {"axis": "x", "value": 5}}]
    return [
        {"type": "abs", "data": {"axis": axis, "value": (start + 16 * noticed) % _POSITIONS}}
        for axis, start in (("x", 4711), ("y", 815))
    ]


def touch(guest: ArrivedGuest, name: str, kind: str) -> None:
    """Press, push or point, and wait until the guest has noticed; ``name`` is the reader's in the guest."""
    before = int.from_bytes(bytes.fromhex(guest.use("input", "count", name)), "little")
    guest.execute("input-send-event", {"events": list(events_for(kind, before))})
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
