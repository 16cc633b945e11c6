# SPDX-License-Identifier: GPL-2.0-or-later
"""What a script has done to its migration, and what it has found to be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from harness.scenario.actions.stage import QmpAnswer
from harness.scenario.command import CommandEnd
from harness.verdict.finding import Finding

#: The rule of a QEMU that takes too long to answer.
FROZEN: Final = "qmp-frozen"
#: The rule of a guest that has moved, and does not do what the script has it do.
UNDONE: Final = "guest-undone"
#: The event of an entry that begins.
ENTRY_BEGINS: Final = "script"


@dataclass(frozen=True, slots=True)
class ScriptNews:
    """What a script has found and brought since it was asked last."""

    findings: tuple[Finding, ...]
    commands: tuple[CommandEnd, ...]
    answers: tuple[QmpAnswer, ...]


@dataclass(slots=True)
class ScriptOutcome:
    """Put together while the script is worked off, read when the migration is over."""

    findings: list[Finding] = field(default_factory=list)
    #: The script has cancelled the migration.
    cancelled: bool = False
    #: The script has ended the destination's QEMU.
    killed: bool = False
    #: The script has had the migration switched to postcopy; and the guest let go at that moment.
    switched: bool = False
    guest_runs: bool = False
    #: The script has broken the connection of a migration in postcopy.
    broken: bool = False

    #: The script has had the stream end in the middle.
    cut: bool = False
    #: The sides whose QEMU the script has told to end (QMP's quit).
    told_to_end: set[str] = field(default_factory=set)
    #: The migration has to fail: a destination that refuses it, and ends, does what it must.
    to_fail: bool = False
    #: What its commands in the guest, and those of QMP, have brought.
    commands: list[CommandEnd] = field(default_factory=list)
    answers: list[QmpAnswer] = field(default_factory=list)
    #: What it asked of a QEMU that had done its part, in words.
    late: list[str] = field(default_factory=list)

    _told: tuple[int, int, int] = (0, 0, 0)

    def news(self) -> ScriptNews:
        """All that has come since this was called last."""
        findings, commands, answers = self._told
        self._told = len(self.findings), len(self.commands), len(self.answers)
        return ScriptNews(
            tuple(self.findings[findings : self._told[0]]),
            tuple(self.commands[commands : self._told[1]]),
            tuple(self.answers[answers : self._told[2]]),
        )

    def find(self, rule: str, text: str) -> None:
        """Note that an expectation was not met."""
        self.findings.append(Finding(rule, "expectation", text))

    @property
    def frozen(self) -> bool:
        """Whether QEMU has left a demand unanswered."""
        return any(finding.rule == FROZEN for finding in self.findings)

    @property
    def destination_may_end(self) -> bool:
        """Whether it is the scenario's doing that the destination's QEMU ends."""
        told = "destination" in self.told_to_end
        return self.killed or self.cancelled or self.cut or self.to_fail or told
