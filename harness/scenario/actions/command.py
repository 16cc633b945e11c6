# SPDX-License-Identifier: GPL-2.0-or-later
"""A command in the guest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from harness.events import Deadline
from harness.scenario.actions.base import GuestAction
from harness.scenario.actions.stage import Stage
from harness.scenario.command import COMMAND_RULES, Command, disappointments, run_in_guest


class GuestRun(GuestAction, Command):
    """The guest runs a command, as root and without a shell; the script goes on when it has ended.

    What came of it is in the result's `commands`. A status or an output that is not as expected is a
    finding (command-status, command-output).
    """

    action: Literal["guest-run"] = "guest-run"

    finds: ClassVar[Mapping[str, str]] = COMMAND_RULES

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By the agent; the command's own limit counts, by the guest's clock."""
        end = run_in_guest(stage.guest, self)
        stage.note_command(end)
        for rule, text in disappointments(self, end):
            stage.find(rule, text)
