# SPDX-License-Identifier: GPL-2.0-or-later
"""A command in the guest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.events import Deadline
from harness.scenario.actions.base import GuestAction
from harness.scenario.actions.stage import Stage
from harness.scenario.command import Command, Words, disappointments, run_in_guest
from harness.scenario.values import Text


class GuestRun(GuestAction):
    """The guest runs a command, as root and without a shell; the script goes on when it has ended.

    What came of it is in the result's `commands`. A status or an output that is not as expected is a
    finding (command-status, command-output).
    """

    action: Literal["guest-run"] = "guest-run"
    run: Words
    """Program and arguments, a word each. There is no shell: `[sh, -c, "..."]` is one."""
    status: Annotated[int, Field(ge=0, le=255)] | None = 0
    """The exit status that it must have; null: any."""
    output: Text | None = None
    """Words that must be in its output."""
    within_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds, by the guest's clock, after which it is killed."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By the agent; the action's own limit counts, by the guest's clock."""
        command = Command(run=self.run, status=self.status, output=self.output, within_s=self.within_s)
        end = run_in_guest(stage.guest, command)
        stage.note_command(end)
        for rule, text in disappointments(command, end):
            stage.find(rule, text)
