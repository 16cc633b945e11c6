# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions of the guest's driver: the balloon's size, and whether it has a driver at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from harness.errors import GuestRefused
from harness.events import Deadline
from harness.scenario.actions.base import GUEST_SECONDS, GuestAction
from harness.scenario.actions.stage import Stage
from harness.scenario.values import Size


class Balloon(GuestAction):
    """Set the balloon's target, and wait until the guest has reached it."""

    action: Literal["balloon"] = "balloon"
    size: Size
    """What the guest is left with."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Set it by QMP; look until the guest has that much."""
        stage.source.execute("balloon", {"value": self.size})
        patience = Deadline(GUEST_SECONDS, "the balloon's size")
        while (size := _size(stage)) != self.size:
            # BALLOON_CHANGE is limited to one a second and may leave out the last change;
            # the guest's own answer comes when its driver has had the processor for a while.
            if patience.expired:
                raise GuestRefused(f"the balloon leaves {size} bytes after {patience.seconds:g} s")
            stage.guest.call("ping", deadline=deadline)


def _size(stage: Stage) -> object:
    answer = stage.source.execute("query-balloon")
    return answer.get("actual") if isinstance(answer, Mapping) else None


class DriverUnbind(GuestAction):
    """The guest's driver lets go of the balloon."""

    action: Literal["driver-unbind"] = "driver-unbind"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By sysfs."""
        stage.guest.call("driver-unbind", deadline=deadline)


class DriverBind(GuestAction):
    """The guest's driver takes the balloon again."""

    action: Literal["driver-bind"] = "driver-bind"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By sysfs."""
        stage.guest.call("driver-bind", deadline=deadline)
