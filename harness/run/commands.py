# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario's commands have brought, in the guest and by QMP, for the verdict and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.events import EventStream
from harness.scenario.command import Command, CommandEnd, CommandRunner, disappointments, run_in_guest
from harness.verdict.finding import Finding

if TYPE_CHECKING:
    from harness.scenario.actions.stage import QmpAnswer
    from harness.script.outcome import ScriptNews


@dataclass(frozen=True, slots=True)
class Said:
    """A command and its end; ``when`` is before, after, or "move N"."""

    when: str
    end: CommandEnd


@dataclass(frozen=True, slots=True)
class Answered:
    """A QMP command of a move's script, and QEMU's answer."""

    move: int
    answer: QmpAnswer


@dataclass(slots=True)
class CommandLog:
    """Of the whole run."""

    said: list[Said] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)

    def of_script(self, move: int, news: ScriptNews) -> None:
        """Take over what the script of a move has brought."""
        self.said += [Said(f"move {move}", end) for end in news.commands]
        self.answered += [Answered(move, answer) for answer in news.answers]

    def run(
        self, when: str, commands: Sequence[Command], guest: CommandRunner, events: EventStream
    ) -> list[Finding]:
        """Run them one after the other; what is not as expected."""
        found: list[Finding] = []
        if not commands:
            return found
        with events.step("commands", when=when):
            for command in commands:
                end = run_in_guest(guest, command)
                self.said.append(Said(when, end))
                events.emit("command", when=when, words=list(end.words), status=end.status)
                found += [Finding(rule, "expectation", text) for rule, text in disappointments(command, end)]
        return found
