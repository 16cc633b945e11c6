# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage of a run: what a script's actions reach of it (see :mod:`harness.scenario.actions.stage`)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from harness.errors import DeadlineExceeded, InputError, MachineryError
from harness.migration.modes import NO_LIMIT
from harness.migration.postcopy import PAUSED, await_paused
from harness.migration.qmp import ACTED, CommandError, Monitor, QemuGone
from harness.migration.vcpus import count_vcpus
from harness.migration.virtio_mem import await_virtio_mem, resize_virtio_mem
from harness.scenario.actions.stage import QmpAnswer, RunFacts
from harness.scenario.command import CommandEnd
from harness.script.agent import Reload, ScriptAgent
from harness.script.domain import ScriptDomain
from harness.script.outcome import ENTRY_BEGINS, FROZEN, ScriptOutcome
from harness.script.pages import OwnedPages
from harness.script.qemus import Qemus
from harness.script.wire import Target, Wire

if TYPE_CHECKING:
    from harness.events import Deadline, Event, EventStream
    from harness.guest.control import GuestControl
    from harness.scenario.load import Migration
    from harness.scenario.resolve import ResolvedScenario

#: How long QEMU may take to answer a simple question.  Far more than it ever needs: what is
#: looked for is a monitor that hangs for as long as the network does.
QMP_SECONDS: Final = 60.0


class Recoverable(Protocol):
    """A migration that can go on over a new connection."""

    def recover(self, deadline: Deadline) -> None:
        """Connect both sides anew, once both are paused in postcopy."""


class Plugs(Protocol):
    """Who plugs the guest's own devices in and out; :class:`harness.run.plugging.Plugging` in a run."""

    def plug(self, device: str, which: int) -> None:
        """Plug one in."""

    def unplug(self, device: str, which: int, stage: RunStage, deadline: Deadline) -> bool:
        """Unplug one; whether the guest has let go of it."""

    def set_link(self, nic: int, stage: RunStage, *, up: bool) -> None:
        """Take a NIC's link down or up."""


class RunStage:
    """The stage of one migration.

    ``how`` it is made; ``load`` loads the guest's workload by a deadline; ``target`` is the host that it goes
    to.
    """

    def __init__(
        self,
        resolved: ResolvedScenario,
        how: Migration,
        control: GuestControl,
        load: Callable[[Deadline], object],
        target: Target,
        events: EventStream,
    ) -> None:
        scenario = resolved.scenario
        self.facts = RunFacts(resolved.seed, how.bandwidth or NO_LIMIT, how.timeout_s)
        self.qemus = Qemus()
        self.pages = OwnedPages(control)
        kvm = resolved.accelerator == "kvm"
        reload = Reload(scenario.guest.boot_timeout_s, load, lambda: count_vcpus(self.source) if kvm else 0)
        self.guest = ScriptAgent(control, reload, self.pages.lost)
        self.wire = Wire(self.qemus, target)
        self.outcome = ScriptOutcome()
        self.domain = ScriptDomain()
        #: The migration under way, where it is one that can be recovered.
        self.recoverable: Recoverable | None = None
        #: Kills what serves a device: by the device's word, and the side.
        self.backends: Callable[[str, str], None] | None = None
        self._by_libvirt = how.postcopy == "libvirt"
        #: The small file system of the disks of a side.
        self.rooms: Callable[[str], Path] | None = None
        #: Plugs the guest's own devices in and out.
        self.plugs: Plugs | None = None
        #: Whether it has run on another host before.
        self.guest_has_moved = False
        self._events = events
        self._since = len(events.history()) - 1
        #: The destination's last word of a pause that was recovered.
        self._recovered_from = -1

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

    def ask(
        self,
        side: str,
        command: str,
        arguments: Mapping[str, object],
        *,
        seconds: float,
        keep: bool = True,
    ) -> QmpAnswer | None:
        """Have a QEMU carry out a QMP command, and keep what it says."""
        monitor = self.source if side == "source" else self.destination
        try:
            said = monitor.execute(command, arguments, seconds=seconds)
        except DeadlineExceeded as error:
            self.find(FROZEN, f"the {side} QEMU does not answer {command}: {error.message}")
            return None
        except CommandError as error:
            if error.kind == "CommandNotFound":
                raise self._unknown(monitor, side, command) from error
            answer = QmpAnswer(side, command, None, error.description)
        else:
            answer = QmpAnswer(side, command, said, None)
        if keep:
            self.keep_answer(answer)
        return answer

    def came_too_late(self, what: str, error: MachineryError, *, in_postcopy: bool) -> bool:
        """Whether that is only because the migration has completed meanwhile; it is noted then.

        The QEMU that the guest has left is ended, and nobody has died of that.  What is done to a migration
        in postcopy is refused by a QEMU that has none any more.
        """
        gone = isinstance(error, QemuGone) and error.side == "source"
        refused = isinstance(error, CommandError) and in_postcopy
        if not (gone or refused) or not self._source_is_done():
            return False
        self.outcome.late.append(f"{what} came when the source had completed the migration")
        return True

    def _source_is_done(self) -> bool:
        for event in self._events.history():
            if event.seq > self._since and event.source == "source.qmp" and event.kind == "MIGRATION":
                data = event.data.get("data")
                if isinstance(data, Mapping) and data.get("status") == "completed":
                    return True
        return False

    def keep_answer(self, answer: QmpAnswer) -> None:
        """For the result."""
        self.outcome.answers.append(answer)

    def _unknown(self, monitor: Monitor, side: str, command: str) -> InputError:
        known = monitor.execute("query-commands")
        names = [str(one["name"]) for one in known] if isinstance(known, list) else []
        near = difflib.get_close_matches(command, names, 3)
        return InputError(
            f"the script's qmp: the {side} QEMU has no command {command!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else "query-commands lists what it has",
        )

    def await_event(
        self,
        side: str,
        wanted: Callable[[str, Mapping[str, object]], bool],
        deadline: Deadline,
        *,
        anew: bool = False,
    ) -> None:
        """Wait for an event of a QEMU since this stage was set, or since the script's entry began."""

        def is_it(event: Event) -> bool:
            data = event.data.get("data")
            return event.source == f"{side}.qmp" and wanted(
                event.kind, data if isinstance(data, Mapping) else {}
            )

        since = self._since
        if anew:
            entries = (event.seq for event in self._events.history() if event.kind == ENTRY_BEGINS)
            since = max(entries, default=since)
        self._events.wait(is_it, deadline, after=since)

    def resize_virtio_mem(self, side: str, size: int) -> None:
        """Ask the guest for another size."""
        resize_virtio_mem(self.source if side == "source" else self.destination, size)

    def await_virtio_mem(self, side: str, deadline: Deadline) -> None:
        """Wait until it has it."""
        await_virtio_mem(self.source if side == "source" else self.destination, self._events, deadline)

    def kill_backend(self, device: str, side: str) -> None:
        """Kill what serves a device of a QEMU."""
        if self.backends is None:
            raise MachineryError(f"nothing is known of who serves {device}")
        self.backends(device, side)
        # The QEMU takes notice when it gets to it.
        self._events.emit(ACTED, source=f"{side}.qmp", command="backend-kill", lingers=True)

    def disk_room(self, side: str) -> Path:
        """The small file system of a side's disks."""
        if self.rooms is None:
            raise MachineryError("nothing is known of the disks' file systems")
        return self.rooms(side)

    def plug(self, device: str, which: int) -> None:
        """Plug in one of the guest's own devices."""
        self._plugs().plug(device, which)

    def unplug(self, device: str, which: int, deadline: Deadline) -> bool:
        """Unplug one; whether the guest has let go of it."""
        return self._plugs().unplug(device, which, self, deadline)

    def set_link(self, nic: int, *, up: bool) -> None:
        """Take a NIC's link down or up."""
        self._plugs().set_link(nic, self, up=up)

    def _plugs(self) -> Plugs:
        if self.plugs is None:
            raise MachineryError("nothing is known of the guest's own devices")
        return self.plugs

    def note_command(self, end: CommandEnd) -> None:
        """A command in the guest has ended."""
        self.outcome.commands.append(end)

    def find(self, rule: str, text: str) -> None:
        """Something is wrong that makes the run fail."""
        self.outcome.find(rule, text)

    def will_cancel(self) -> None:
        """The script is about to cancel the migration."""
        self.outcome.cancelled = True

    def will_switch(self, *, guest_runs: bool) -> None:
        """The script is about to have the migration switched to postcopy."""
        self.outcome.switched, self.outcome.guest_runs = True, guest_runs

    def start_postcopy(self, *, guest_runs: bool) -> None:
        """By QMP, or by libvirt where the migration is libvirt's."""
        if self._by_libvirt:
            self.domain.start_postcopy()
            return
        if guest_runs:
            # A QEMU that waits for its guest notes that it may start; before that nothing runs.
            self.destination.execute("cont")
        self.source.execute("migrate-start-postcopy")

    def will_break(self) -> None:
        """The script is about to break the connection of a migration in postcopy."""
        self.outcome.broken = True

    def pause_postcopy(self) -> None:
        """By libvirt."""
        self.domain.pause_postcopy()

    def recover(self, deadline: Deadline) -> None:
        """Have a migration that is paused in postcopy go on."""
        if self.recoverable is None:
            raise MachineryError("there is no migration that could be recovered")
        await_paused(self.source, deadline)
        self._recovered_from = self._await_paused_there(deadline)
        self.recoverable.recover(deadline)

    def _await_paused_there(self, deadline: Deadline) -> int:
        """Return when the destination has said that its migration is paused, by which of the events.

        It is not asked: its main loop may wait for a page that comes with the recovery only.
        """

        def paused(event: Event) -> bool:
            told = event.source == "destination.qmp" and event.kind == "MIGRATION"
            data = event.data.get("data")
            return told and isinstance(data, Mapping) and data.get("status") == PAUSED

        # What it said before an earlier recovery is over.
        return self._events.wait(paused, deadline, after=max(self._since, self._recovered_from)).seq

    def will_cut_wire(self) -> None:
        """The script is about to have the stream end in the middle."""
        self.outcome.cut = True

    def will_kill_destination(self) -> None:
        """The script is about to end the destination's QEMU."""
        self.outcome.killed = True

    def will_end(self, side: str) -> None:
        """The script is about to tell the QEMU of a side to end."""
        self.outcome.told_to_end.add(side)
