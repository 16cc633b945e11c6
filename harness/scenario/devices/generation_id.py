# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM generation id."""

from __future__ import annotations

from typing import Literal

from harness.scenario.devices.base import Device, DeviceContext


class GenerationId(Device):
    """A VM generation id in the guest's memory (vmgenid)."""

    qemu_device = "vmgenid"

    device: Literal["generation-id"] = "generation-id"
    """Which device."""
    at_destination: Literal["kept", "changed"] = "kept"
    """kept: the destination's QEMU says the same id; changed: another one, which it writes."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """Libvirt has words for it, but none for an id that changes in a migration."""
        guid = context.uuid(each_host=self.at_destination == "changed")
        return ("-device", f"vmgenid,guid={guid}")
