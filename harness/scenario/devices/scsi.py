# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI controller with a disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser
from harness.scenario.devices.formula_disk import block_node, check_disk, make_image, write_first

#: QEMU's name of each controller, and the module that drives it.
_MODELS: Final = {
    "virtio": ("virtio-scsi-pci", "virtio_scsi"),
    "lsi53c895a": ("lsi53c895a", "sym53c8xx"),
    "megasas": ("megasas", "megaraid_sas"),
    "pvscsi": ("pvscsi", "vmw_pvscsi"),
    "mptsas": ("mptsas1068", "mptsas"),
}


class ScsiController(Device):
    """A SCSI controller with a disk of 16 MiB on it, half of which the guest writes to."""

    needs_lab = True

    device: Literal["scsi"] = "scsi"
    """Which device."""
    model: Literal["virtio", "lsi53c895a", "megasas", "pvscsi", "mptsas"] = "virtio"
    """Which controller. Debian's cloud kernel drives virtio and pvscsi."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """The controller and the disk."""
        return (_MODELS[self.model][0], "scsi-hd")

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Drivers of both."""
        return (_MODELS[self.model][1], "sd_mod")

    def provide(self, context: DeviceContext) -> None:
        """The disk's image."""
        make_image(context)

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The controller, and the disk on it."""
        name = context.name
        return (
            *("-device", f"{_MODELS[self.model][0]},id={name},{context.place}"),
            *block_node(context),
            *("-device", f"scsi-hd,id={name}-hd,bus={name}.0,drive={name}-disk"),
        )

    def boarding(self, guest: DeviceUser) -> None:
        """The disk reads right, and was written to."""
        write_first(guest)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The disk reads right, what was written before is there, and it is written again."""
        if (text := check_disk(guest)) is not None:
            yield text
