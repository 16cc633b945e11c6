# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on the migration and on both QEMUs, done on the host."""

from __future__ import annotations

import os
import signal
from typing import Final, Literal

from harness.events import Deadline
from harness.scenario.actions.base import Action
from harness.scenario.actions.stage import MigrationSide, Stage
from harness.scenario.values import Rate, Size
from harness.scenario.wire import WireConditions

#: What a user's tools ask all the time.
QUESTIONS: Final = ("query-status", "query-migrate")


class Stop(Action):
    """Stop the guest."""

    action: Literal["stop"] = "stop"

    runs_after = False

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``stop``."""
        stage.source.execute("stop")


class Cont(Action):
    """Let the guest run; in a hold of the device, the migration as well."""

    action: Literal["cont"] = "cont"

    runs_after = True
    ends_hold = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``cont``."""
        stage.source.execute("cont")


class Cancel(Action):
    """Cancel the migration, and demand an answer."""

    action: Literal["cancel"] = "cancel"

    brings = "cancelling"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``migrate_cancel``."""
        stage.will_cancel()
        stage.demand_answer("migrate_cancel")


class QmpAnswers(Action):
    """QEMU has to answer query-status and query-migrate; if it does not, that is a finding (qmp-frozen)."""

    action: Literal["qmp-answers"] = "qmp-answers"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Ask both questions."""
        demand_answers(stage)


def demand_answers(stage: Stage) -> None:
    """QEMU has to answer; one that was frozen already is asked no more."""
    for command in QUESTIONS:
        if not stage.frozen:
            stage.demand_answer(command)


class Bandwidth(Action):
    """Change the migration's bandwidth limit."""

    action: Literal["bandwidth"] = "bandwidth"
    limit: Rate | None = None
    """The new limit; null: what the scenario says."""

    @property
    def changes_limit(self) -> bool:
        """To what it says."""
        return True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """A parameter of the migration, which QEMU heeds at once."""
        limit = self.limit or stage.facts.bandwidth
        stage.source.execute("migrate-set-parameters", {"max-bandwidth": limit})


class Stall(Action):
    """Let nothing through to the destination any more, and wait until the source blocks in a write."""

    action: Literal["stall"] = "stall"
    by: Literal["wire", "reader"] = "wire"
    """wire: the network between the hosts goes down; the write may still go on a little now and then,
    as TCP repacks what it sends again. reader: the destination's QEMU is stopped (SIGSTOP) and reads no
    more; then the source blocks for good."""

    needs_network = True

    @property
    def touches_wire(self) -> bool:
        """By the wire."""
        return self.by == "wire"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Take away what the source's bytes go through, and wait until it has noticed."""
        if self.by == "reader":
            stage.wire.stop_reader()
        else:
            stage.wire.cut()
        stage.wire.wait_until_blocked()


class WireCut(Action):
    """Take the network between the hosts down, without waiting for anything.

    A migration past libvirt that begins then comes no further than its setup, in which QEMU connects.
    `unstall` ends it.
    """

    action: Literal["wire-cut"] = "wire-cut"

    needs_network = True

    @property
    def touches_wire(self) -> bool:
        """It takes it down."""
        return True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Nothing goes through from now on."""
        stage.wire.cut()


class Unstall(Action):
    """Let the source's bytes through again, whatever kept them."""

    action: Literal["unstall"] = "unstall"

    needs_network = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The network, or that QEMU."""
        stage.wire.mend()


class WireChange(Action, WireConditions):
    """Have the network between the hosts be as said from now on; keys that are left out are none."""

    action: Literal["wire-change"] = "wire-change"

    needs_network = True
    changes_wire = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By the relay that the frames pass through."""
        keys = set(WireConditions.model_fields)
        stage.wire.change(WireConditions(**self.model_dump(include=keys)))


class WireCutAfter(Action):
    """Let so many bytes of the source's connections through from now on, to the byte, and nothing more."""

    action: Literal["wire-cut-after"] = "wire-cut-after"
    size: Size
    """How many bytes of TCP payload, of all connections together: `4096B`, `1MiB`."""
    then: Literal["reset", "silence"] = "reset"
    """reset: both sides are told that the connection is gone. silence: nobody is told anything, so
    that the migration is stuck; `unstall` lets frames through again."""

    needs_network = True
    changes_wire = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """By the relay that the frames pass through."""
        stage.will_cut_wire()
        stage.wire.cut_after(self.size, reset=self.then == "reset")


class Quit(Action):
    """Tell a QEMU to end (QMP's quit), in the middle of a migration. It has to end by itself, and whole.

    Told to the source, the guest is nowhere afterwards: for the last of the moves, which has to fail. That it
    crashes is `qemu-crashed`, that it does not end `stuck`, that it ends with another exit status than 0
    `qemu-ended`.
    """

    action: Literal["quit"] = "quit"
    side: MigrationSide = "source"
    """Which QEMU: the one that the guest leaves, or the one that it goes to."""

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    @property
    def ends_guest(self) -> bool:
        """Who ends the source's QEMU ends the guest."""
        return self.side == "source"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """It answers before it ends."""
        stage.will_end(self.side)
        qemu = stage.source if self.side == "source" else stage.destination
        qemu.expect_end()
        qemu.execute("quit")


class KillDestination(Action):
    """Kill the destination's QEMU."""

    action: Literal["kill-destination"] = "kill-destination"

    @property
    def needs_destination(self) -> bool:
        """It is what it ends."""
        return True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """SIGKILL."""
        stage.will_kill_destination()
        qemu = stage.destination
        qemu.expect_end()
        os.kill(qemu.pid, signal.SIGKILL)
