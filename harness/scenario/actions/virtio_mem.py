# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on memory that a virtio-mem device gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from harness.errors import DeadlineExceeded
from harness.events import Deadline
from harness.scenario.actions.base import Action
from harness.scenario.actions.stage import MigrationSide, Stage
from harness.scenario.values import Size


class VirtioMemResize(Action):
    """Ask the guest to have so much of the virtio-mem device's memory plugged in.

    While QEMU migrates, the device tells the guest that it is busy; the guest asks again, but only after
    most of a minute, or once there is another request.
    """

    action: Literal["virtio-mem-resize"] = "virtio-mem-resize"
    plugged: Size
    """How much: whole blocks of the device's."""
    side: MigrationSide = "source"
    """Which QEMU: the one that the guest leaves, or the one that it goes to."""
    wait: bool = False
    """Whether to wait until the guest has done it; that it does not is a finding (virtio-mem-size)."""

    needs_virtio_mem: ClassVar[bool] = True
    waits: ClassVar[bool] = True
    finds: ClassVar[Mapping[str, str]] = {
        "virtio-mem-size": "the guest does not come to the virtio-mem that a script asks it to have"
    }

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    @property
    def needs_guest_there(self) -> bool:
        """If it waits; and the size that QEMU was asked for before is overwritten by what it loads."""
        return self.side == "destination" and self.wait

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By QMP: libvirt changes nothing while it migrates."""
        stage.resize_virtio_mem(self.side, self.plugged)
        if not self.wait:
            return
        try:
            stage.await_virtio_mem(self.side, deadline)
        except DeadlineExceeded:
            text = f"the guest did not come to {self.plugged} bytes of virtio-mem on the {self.side}"
            stage.find("virtio-mem-size", text)
