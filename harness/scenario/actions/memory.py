# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on the guest's memory blocks: offline and online again."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from harness.events import Deadline
from harness.scenario.actions.base import ControlAction, GuestAction
from harness.scenario.actions.stage import Stage

#: Where the module holds who takes memory offline: the block's free pages are isolated.
ISOLATED: Final = "going-offline"


class MemoryOffline(GuestAction):
    """The guest takes memory blocks offline, from the top, as many as it can of so many."""

    action: Literal["memory-offline"] = "memory-offline"
    blocks: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many; none at all is an error."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The agent refuses if none could be taken."""
        stage.guest.call("memory-offline", self.blocks, deadline=deadline)


class MemoryOnline(GuestAction):
    """The guest takes all its memory online again."""

    action: Literal["memory-online"] = "memory-online"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """All blocks."""
        stage.guest.call("memory-online", deadline=deadline)


class MemoryIsolate(ControlAction):
    """The guest begins to take a memory block offline; until module-unhold its free pages stay isolated.

    No other action on memory blocks may come before that.
    """

    action: Literal["memory-isolate"] = "memory-isolate"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Return when the module holds it there."""
        stage.guest.call("hold", ISOLATED, deadline=deadline)
        stage.guest.call("memory-offline-begin", deadline=deadline)
        stage.guest.call("held", ISOLATED, deadline=deadline)
