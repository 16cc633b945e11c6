# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage of a run: what a script's actions reach of it (see :mod:`harness.scenario.actions.stage`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded
from harness.migration.modes import NO_LIMIT
from harness.migration.qmp import Monitor
from harness.scenario.actions.stage import RunFacts
from harness.script.agent import Reload, ScriptAgent
from harness.script.outcome import FROZEN, ScriptOutcome
from harness.script.pages import OwnedPages
from harness.script.qemus import Qemus
from harness.script.wire import Target, Wire

if TYPE_CHECKING:
    from harness.events import Deadline, EventStream
    from harness.guest.control import GuestControl
    from harness.scenario.resolve import ResolvedScenario

#: How long QEMU may take to answer a simple question.  Far more than it ever needs: what is
#: looked for is a monitor that hangs for as long as the network does.
QMP_SECONDS: Final = 60.0


class RunStage:
    """The stage of one migration.

    ``load`` loads the guest's workload by a deadline; ``target`` is the host that it goes to.
    """

    def __init__(
        self,
        resolved: ResolvedScenario,
        control: GuestControl,
        load: Callable[[Deadline], object],
        target: Target,
        events: EventStream,
    ) -> None:
        scenario = resolved.scenario
        how = scenario.migration
        self.facts = RunFacts(resolved.seed, how.bandwidth or NO_LIMIT, how.timeout_s)
        self.qemus = Qemus()
        self.pages = OwnedPages(control)
        vcpus = scenario.guest.vcpus if resolved.accelerator == "kvm" else 0
        reload = Reload(scenario.guest.boot_timeout_s, load, vcpus)
        self.guest = ScriptAgent(control, reload, self.pages.lost)
        self.wire = Wire(self.qemus, target)
        self.outcome = ScriptOutcome()
        self._events = events

    @property
    def source(self) -> Monitor:
        """The QEMU that the guest leaves."""
        return self.qemus.source

    @property
    def destination(self) -> Monitor:
        """The QEMU that the guest goes to."""
        return self.qemus.destination

    @property
    def holds_stream(self) -> bool:
        """Whether the script keeps the stream from the destination."""
        return self.wire.cut_off

    @property
    def frozen(self) -> bool:
        """Whether QEMU has left a demand unanswered."""
        return self.outcome.frozen

    def demand_answer(self, command: str) -> None:
        """An answer that does not come is what a user would suffer from, and no failure of ours."""
        try:
            self.source.execute(command, seconds=QMP_SECONDS)
        except DeadlineExceeded as error:
            self.find(FROZEN, f"QEMU does not answer {command}: {error.message}")
            # Whatever comes next would wait for it as well.
            self.wire.mend()
        else:
            self._events.emit("qmp-answered", command=command)

    def find(self, rule: str, text: str) -> None:
        """Something is wrong that makes the run fail."""
        self.outcome.find(rule, text)

    def will_cancel(self) -> None:
        """The script is about to cancel the migration."""
        self.outcome.cancelled = True

    def will_kill_destination(self) -> None:
        """The script is about to end the destination's QEMU."""
        self.outcome.killed = True
