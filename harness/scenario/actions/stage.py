# SPDX-License-Identifier: GPL-2.0-or-later
"""What an action of a script can reach while it is carried out.

Types only: a run's own objects (:mod:`harness.script.stage`) fit them, and so do
those of a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from harness.errors import MachineryError
from harness.events import Deadline
from harness.scenario.command import CommandEnd, CommandRunner
from harness.scenario.wire import WireConditions

#: Which of a migration's QEMUs: the one that the guest leaves, or the one that it goes to.
MigrationSide: TypeAlias = Literal["source", "destination"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run has decided before its migration begins, as far as actions need it."""

    #: Of the workload's contents and all else that is random.
    seed: int
    #: The migration's limit in bytes a second; a very large number where the scenario has none.
    bandwidth: int
    #: Seconds until a migration must have completed.
    timeout_s: int


@dataclass(frozen=True, slots=True)
class QmpAnswer:
    """What QEMU said to a command of the script's; ``error`` is None if it did it."""

    side: str
    command: str
    answer: object
    error: str | None


class Domain(Protocol):
    """The guest as libvirt has it, on the source."""

    def attach(self, xml: str) -> None:
        """Plug a device in.  Raises :class:`harness.errors.InputError` if libvirt refuses."""

    def detach(self, xml: str) -> None:
        """Ask the guest to let go of a device; returns at once."""

    @property
    def vcpus(self) -> int:
        """How many vCPUs are plugged in."""

    def set_vcpus(self, count: int) -> None:
        """Plug vCPUs in or out.  Raises :class:`harness.errors.InputError` if libvirt refuses."""


class Qemu(Protocol):
    """A running QEMU and its monitor."""

    @property
    def pid(self) -> int:
        """Its process."""

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        seconds: float = 30,
        at_once: bool = False,
    ) -> object:
        """Run one QMP command; its answer.  ``at_once``: out of band."""

    def expect_end(self) -> None:
        """From now on its end is nothing unusual."""


class Agent(CommandRunner, Protocol):
    """The guest's agent.  Only for actions that need the guest: a call waits for its answer."""


class RestartableAgent(Agent, Protocol):
    """The agent of a guest that may boot again."""

    def restart(self, begin: Callable[[Deadline], object]) -> None:
        """Call ``begin``, which has the guest boot again; wait for it, and load it as it was."""


class ScriptPages(Protocol):
    """The pages that the script owns in the guest: known contents, which must survive."""

    @property
    def frames(self) -> Sequence[int]:
        """Their page frame numbers."""

    def call(self, verb: str, *words: int, deadline: Deadline) -> None:
        """Have the agent do something with them (``pages-VERB``), and remember what it says."""


class MigrationWire(Protocol):
    """What the source's bytes go through on their way to the destination."""

    def cut(self) -> None:
        """Take the network between the hosts down."""

    def stop_reader(self) -> None:
        """Stop the destination's QEMU; returns when nothing makes room for the source any more."""

    def mend(self) -> None:
        """Undo whichever of the two was done."""

    def change(self, conditions: WireConditions) -> None:
        """Have the network be as it says from now on."""

    def cut_after(self, size: int, *, reset: bool) -> None:
        """Let ``size`` more bytes through from the source, and nothing after them.

        ``reset``: tell both sides that their connections are gone.
        """

    def wait_until_blocked(self) -> None:
        """Return when the source's migration blocks in a write."""


class Stage(Protocol):
    """All that an action can reach."""

    @property
    def facts(self) -> RunFacts:
        """What the run has decided."""

    @property
    def guest_has_moved(self) -> bool:
        """Whether the guest has run on another host than that on which it booted."""

    @property
    def source(self) -> Qemu:
        """The QEMU that the guest leaves."""

    @property
    def destination(self) -> Qemu:
        """The QEMU that the guest goes to; :class:`harness.errors.MachineryError` before it is there."""

    @property
    def guest(self) -> RestartableAgent:
        """The guest's agent."""

    @property
    def pages(self) -> ScriptPages:
        """The script's own pages in the guest."""

    @property
    def wire(self) -> MigrationWire:
        """The way to the destination."""

    @property
    def domain(self) -> Domain:
        """The guest as libvirt has it."""

    def ask(
        self,
        side: str,
        command: str,
        arguments: Mapping[str, object],
        *,
        seconds: float,
        keep: bool = True,
    ) -> QmpAnswer | None:
        """Have a QEMU (``source`` or ``destination``) carry out a QMP command; ``keep``: for the result.

        None: it did not answer in time, which is a finding (qmp-frozen).  Raises
        :class:`harness.errors.InputError` if it does not know the command.
        """

    def came_too_late(self, what: str, error: MachineryError, *, in_postcopy: bool) -> bool:
        """Whether an action has failed only because the migration had completed; that is noted then.

        ``what``: its word.  ``in_postcopy``: it acts on a migration in postcopy.
        """

    def keep_answer(self, answer: QmpAnswer) -> None:
        """For the result."""

    def await_event(
        self,
        side: str,
        wanted: Callable[[str, Mapping[str, object]], bool],
        deadline: Deadline,
        *,
        anew: bool = False,
    ) -> None:
        """Wait for an event of a QEMU since the migration began: ``wanted`` is given name and data.

        ``anew``: since the script's entry began.

        Raises :class:`harness.errors.DeadlineExceeded`.
        """

    def resize_virtio_mem(self, side: str, size: int) -> None:
        """Ask the guest, by a QEMU, to have so many bytes of virtio-mem plugged in."""

    def await_virtio_mem(self, side: str, deadline: Deadline) -> None:
        """Wait until it has.  Raises :class:`harness.errors.DeadlineExceeded`."""

    def kill_backend(self, device: str, side: str) -> None:
        """Kill the programs that serve a device of the QEMU on that side; returns when they are gone."""

    def disk_room(self, side: str) -> Path:
        """The small file system that disks of the QEMU on that side are in."""

    def plug(self, device: str, which: int) -> None:
        """Plug in one of the guest's own devices, and have the guest use it."""

    def unplug(self, device: str, which: int, deadline: Deadline) -> bool:
        """Unplug one; whether the guest has let go of it by the deadline."""

    def set_link(self, nic: int, *, up: bool) -> None:
        """Take the link of one of the guest's NICs down or up, on the QEMU that it leaves."""

    def note_command(self, end: CommandEnd) -> None:
        """A command of the script's in the guest has ended, for the result."""

    @property
    def frozen(self) -> bool:
        """Whether QEMU has left a demand unanswered."""

    def demand_answer(self, command: str) -> None:
        """QEMU on the source has to answer a QMP command; that it does not is a finding."""

    def find(self, rule: str, text: str) -> None:
        """Something is wrong that makes the run fail: an expectation of the script's."""

    def will_cancel(self) -> None:
        """The script is about to cancel the migration: that it ends so is what it wants."""

    def will_switch(self, *, guest_runs: bool) -> None:
        """The script is about to have the migration switched to postcopy."""

    def start_postcopy(self, *, guest_runs: bool) -> None:
        """Have the migration switched, by whoever carries it out; QEMU takes note, and nothing more."""

    def will_break(self) -> None:
        """The script is about to break the connection of a migration in postcopy."""

    def pause_postcopy(self) -> None:
        """Have libvirt break the connection of its migration in postcopy."""

    def recover(self, deadline: Deadline) -> None:
        """Connect both sides of a migration that is paused in postcopy anew, and have it go on.

        Waits until both are paused.  Raises :class:`harness.errors.MachineryError` if there is no such
        migration, or it cannot be connected.
        """

    def will_cut_wire(self) -> None:
        """The script is about to have the stream end in the middle: either QEMU may give up."""

    def will_kill_destination(self) -> None:
        """The script is about to end the destination's QEMU."""

    def will_end(self, side: str) -> None:
        """The script is about to tell the QEMU of a side to end."""
