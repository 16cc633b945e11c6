# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions after which the guest boots again, in the middle of the migration, and is loaded as it was."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from harness.events import Deadline
from harness.scenario.actions.base import GuestAction
from harness.scenario.actions.stage import Stage


class _Restart(GuestAction):
    """What has the guest boot again."""

    restarts = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The guest's restart has deadlines of its own: the scenario says how long a boot may take."""
        stage.guest.restart(lambda boot: self.begin(stage, boot))

    @abstractmethod
    def begin(self, stage: Stage, deadline: Deadline) -> None:
        """Have the guest go down."""


class Reset(_Restart):
    """Reset the machine, wait until the guest has booted again, and load it again."""

    action: Literal["reset"] = "reset"

    def begin(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``system_reset``."""
        stage.source.execute("system_reset")


class Reboot(_Restart):
    """Have the guest reboot, wait until it has booted again, and load it again."""

    action: Literal["reboot"] = "reboot"

    def begin(self, stage: Stage, deadline: Deadline) -> None:
        """reboot(2) in the guest."""
        stage.guest.call("reboot", deadline=deadline)


class Kexec(_Restart):
    """Have the guest start its own kernel anew by kexec, wait for it, and load it again."""

    action: Literal["kexec"] = "kexec"

    needs_kernel = True

    def begin(self, stage: Stage, deadline: Deadline) -> None:
        """kexec_file_load(2), then reboot(2), in the guest."""
        stage.guest.call("kexec", deadline=deadline)
