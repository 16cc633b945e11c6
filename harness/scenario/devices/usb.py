# SPDX-License-Identifier: GPL-2.0-or-later
"""A USB controller, and what hangs on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser
from harness.scenario.devices.formula_disk import block_node, check_disk, make_image, write_first
from harness.scenario.devices.input import touch
from harness.scenario.values import as_tuple

#: QEMU's names, by ours.
_PARTS: Final = {"tablet": "usb-tablet", "keyboard": "usb-kbd", "storage": "usb-storage"}
#: The vendor that QEMU's own devices name.
_VENDOR: Final = 0x0627
_STORAGE_VENDOR: Final = 0x46F4


class Usb(Device):
    """A USB controller (xhci) with devices on it. Debian's cloud kernel has no drivers for it."""

    needs_lab = True

    device: Literal["usb"] = "usb"
    """Which device."""
    parts: Annotated[
        tuple[Literal["tablet", "keyboard", "storage"], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1, max_length=3),
    ] = ("tablet", "storage")
    """What hangs on it. storage: a disk of 16 MiB, half of which the guest writes to."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """The controller and the parts."""
        return ("qemu-xhci", *(_PARTS[part] for part in self.parts))

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Drivers of the controller and of each part."""
        storage = ("usb_storage", "sd_mod") if "storage" in self.parts else ()
        return ("xhci_pci", *storage, "usbhid", "hid_generic", "evdev")

    def provide(self, context: DeviceContext) -> None:
        """The disk's image."""
        if "storage" in self.parts:
            make_image(context)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The controller, then each part."""
        name = context.name
        words = ["-device", f"qemu-xhci,id={name},{context.place}"]
        for number, part in enumerate(self.parts, 1):
            more = ""
            if part == "storage":
                words += block_node(context)
                more = f",drive={name}-disk"
            words += ["-device", f"{_PARTS[part]},id={name}-{part},bus={name}.0,port={number}{more}"]
        return tuple(words)

    def _ask(self, guest: DeviceUser) -> None:
        where = guest.context.pci_address
        storage = int("storage" in self.parts)
        if others := len(self.parts) - storage:
            guest.use("usb", "ask", where, _VENDOR, others)
        if storage:
            guest.use("usb", "ask", where, _STORAGE_VENDOR, storage)

    def boarding(self, guest: DeviceUser) -> None:
        """Each part answers; the tablet's events are read, and the disk was written to."""
        self._ask(guest)
        if "storage" in self.parts:
            write_first(guest)
        if "tablet" in self.parts and "keyboard" not in self.parts:
            guest.use("input", "begin", guest.context.name, guest.context.pci_address)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """Each part answers; the host points at the tablet, and the guest reads and writes the disk."""
        self._ask(guest)
        if "storage" in self.parts and (text := check_disk(guest)) is not None:
            yield text
        if "tablet" in self.parts and "keyboard" not in self.parts:
            touch(guest, guest.context.name, "tablet")
