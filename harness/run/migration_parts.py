# SPDX-License-Identifier: GPL-2.0-or-later
"""What all that has to do with one migration works with."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.events import EventStream
from harness.hosts.interface import Host
from harness.migration.inbox import Inbox
from harness.report.folder import RunFolder
from harness.run.sides import Sides
from harness.script.stage import RunStage

if TYPE_CHECKING:
    from harness.run.guest import Guest
    from harness.scenario.load import Scenario


@dataclass(frozen=True, eq=False, slots=True)
class MigrationParts:
    """The guest, both hosts and their QEMUs, and where things go; ``move``: which of the scenario's it is."""

    guest: Guest
    origin: Host
    target: Host
    #: For this migration alone.
    folder: RunFolder
    events: EventStream
    inbox: Inbox
    #: What is closed when the migration has been judged.
    stack: ExitStack
    sides: Sides
    stage: RunStage
    move: int
    #: Where a tap writes what it hears; None: nobody listens.
    stream: Path | None
    #: Events after this one are of this migration.
    since: int

    @property
    def scenario(self) -> Scenario:
        """The run's."""
        return self.guest.plan.resolved.scenario
