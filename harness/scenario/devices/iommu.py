# SPDX-License-Identifier: GPL-2.0-or-later
"""An IOMMU, through which the guest's NIC reaches the guest's memory."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Final, Literal

from harness.errors import MachineryError
from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser
from harness.scenario.devices.mirror import Mirror

#: QEMU's names.
_MODELS: Final = {"intel": "intel-iommu", "virtio": "virtio-iommu-pci"}
#: Devices of virtio's that go through it. The balloon does not: its driver knows addresses of the guest only.
_BEHIND: Final = (
    "virtio-net-pci",
    "virtio-blk-pci",
    "virtio-scsi-pci",
    "virtio-rng-pci",
    "virtio-serial-pci",
)


class Iommu(Device):
    """An IOMMU. NIC, disks and other virtio devices reach the guest's memory through it, but for the balloon.

    The guest's NIC has to be behind it, and to carry datagrams.
    """

    needs_pcie = True
    needs_lab = True

    device: Literal["iommu"] = "iommu"
    """Which device."""
    model: Literal["intel", "virtio"] = "intel"
    """intel: VT-d. virtio: virtio-iommu; Debian's kernels have its driver from trixie's on, a module, and the
    guest's NIC comes once that is loaded."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's name of the model."""
        return (_MODELS[self.model],)

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Intel's is built in."""
        return ("virtio_iommu",) if self.model == "virtio" else ()

    @property
    def kernel_words(self) -> tuple[str, ...]:
        """Debian's kernels use Intel's when they are told to."""
        return ("intel_iommu=on",) if self.model == "intel" else ()

    def xml(self, context: DeviceContext) -> ET.Element:  # noqa: ARG002
        """Libvirt puts it before all devices, as QEMU needs it."""
        return ET.Element("iommu", {"model": self.model})

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:  # noqa: ARG002
        """What makes virtio devices go through it."""
        properties = ("iommu_platform=on", "disable-legacy=on")
        return tuple(
            word for one in _BEHIND for value in properties for word in ("-global", f"{one}.{value}")
        )

    def _use(self, guest: DeviceUser) -> None:
        link = guest.context.link
        if link is None:
            raise MachineryError("the guest has no NIC that could be behind its IOMMU")
        with Mirror(link.lab) as (address, port):
            guest.use("iommu", "check", link.mac)
            guest.use("nic", "echo", link.mac, address, port, 1)

    def boarding(self, guest: DeviceUser) -> None:
        """The NIC is behind it, and carries datagrams."""
        self._use(guest)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The NIC still carries datagrams through it."""
        self._use(guest)
        return ()
