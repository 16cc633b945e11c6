# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on the programs that serve a guest's devices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.events import Deadline
from harness.scenario.actions.base import Action
from harness.scenario.actions.monitor import MigrationSide
from harness.scenario.actions.stage import Stage
from harness.scenario.values import Text


class BackendKill(Action):
    """Kill the program that serves a device: swtpm, virtiofsd, qemu-storage-daemon, vhost-user-bridge.

    Either QEMU may give up then; the next one that is started has a new one.
    """

    action: Literal["backend-kill"] = "backend-kill"
    device: Annotated[Text, Field(min_length=1)]
    """Which device, by its word: tpm, virtiofs, disk (on vhost-user-blk), nic (of vhost-user)."""
    side: MigrationSide = "destination"
    """Whose: the QEMU's that the guest leaves, or the one's that it goes to."""

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    @property
    def needs_backend(self) -> str | None:
        """The device that somebody has to serve."""
        return self.device

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """SIGKILL; it is gone when this returns."""
        stage.will_cut_wire()
        stage.kill_backend(self.device, self.side)
