# SPDX-License-Identifier: GPL-2.0-or-later
"""One live migration of a run: from a running guest on one host to a guest that stands still on both.

with LiveMigration(guest, (source, destination), folder, events, script) as migration:
switch_over = migration.run(domain, how)     # raises MigrationError: migration.abort(error)
...                                          # judge; resume the guest
migration.resumed(deadline)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import libvirt

from harness.errors import DeadlineExceeded, FreepageError, MachineryError
from harness.events import Deadline, Event, EventStream
from harness.evidence.acted_upon import acted_upon, unplugs
from harness.evidence.check_times import timed
from harness.evidence.device_state import SavedState, describe, registers_of
from harness.evidence.host_writes import HostWritten, generation_id, host_written
from harness.evidence.outcomes import account_of, locks_of, with_core
from harness.evidence.switch_over import Abort, PostcopyMove, Side, SwitchOver
from harness.evidence.wire_pace import wire_pace
from harness.guest.domain import destination_xml
from harness.hosts.interface import Host
from harness.hosts.qemu_log import last_words
from harness.memory.access import Image
from harness.memory.live_image import LiveImage
from harness.migration.confirm import ConfirmGate
from harness.migration.credentials import Credentials, Tls
from harness.migration.direct import ARGUMENTS, DirectJob
from harness.migration.hand_over import HandOver, HandOverRoute
from harness.migration.hold import HoldKeeper
from harness.migration.inbox import Inbox
from harness.migration.job import Job, MigrationJob
from harness.migration.memory_map import Range, query_map
from harness.migration.modes import Modes
from harness.migration.outside import OutsideWalk
from harness.migration.postcopy_job import PostcopyJob
from harness.migration.qmp import CLOSED, Monitor
from harness.migration.request import MigrationRequest
from harness.migration.route import Descriptor, Exec, Route, Tcp, Unix
from harness.migration.settle import QemuSettings
from harness.migration.statistics import (
    MigrationStatistics,
    OutOfTimeError,
    RamBlock,
    from_job_stats,
)
from harness.migration.vcpus import count_vcpus
from harness.migration.virtio_mem import await_virtio_mem
from harness.report.folder import RunFolder
from harness.report.modes import SideModes
from harness.run.follow import LastLook, RunFollower
from harness.run.guest import Guest
from harness.run.pausing import Standing
from harness.run.plugging import Plugging
from harness.run.saved import Crossing, SavedJob, job_for, waits_for_a_stream
from harness.run.saved.state_file import FileFacts, StateFile
from harness.run.sides import Endpoint, Sides
from harness.run.stand_still import StandStill
from harness.run.suspending import Suspension
from harness.scenario.script import STATUSES, actions
from harness.script.outcome import ScriptNews
from harness.script.runner import ScriptRunner
from harness.script.stage import RunStage
from harness.verdict.locks import LockLook
from harness.verdict.outcome import MigrationOutcome, QemuAccount
from harness.verdict.rules.vcpus import VcpuCount
from harness.verdict.throttle import ThrottleLook

if TYPE_CHECKING:
    from harness.run.several_guests.start_line import Line
    from harness.scenario.load import Migration
    from harness.scenario.script import Entry
    from harness.verdict.finding import Finding
    from harness.verdict.judge import MemoryJudgement
    from harness.verdict.wire import WirePace

#: For what a script has begun when its migration is given up; the guest may be emulated.
GIVEN_UP_SECONDS: Final = 60.0
#: How long libvirt may take to end the QEMU that the guest has left.
END_SECONDS: Final = 15.0
#: Why devices are not compared under KVM; see docs/found.md.
KVM_CLOCK: Final = "under KVM a QEMU that saves a guest before it has run it sets the guest's clock wrong"
#: How long the end of a QEMU that is known to be gone may take to be told.
GONE_SECONDS: Final = 2.0
#: Lines of a QEMU's own log that are looked through for what it says of itself.
MOST_WORDS: Final = 400


class LiveMigration:
    """A context manager: monitors and images are open until the memory has been judged.

    ``folder`` is for this migration alone; ``script`` for what happens meanwhile, and
    ``on_moment`` for whoever has to know of each moment before that.  ``move``: which of
    the scenario's moves it is, counted from 1.  ``stand``: where a person wants it to stand still.
    ``line``: where it waits for other guests just before it begins.
    """

    def __init__(
        self,
        guest: Guest,
        hosts: tuple[Host, Host],
        folder: RunFolder,
        events: EventStream,
        script: Sequence[Entry] = (),
        on_moment: Callable[[str], None] | None = None,
        move: int = 1,
        stand: StandStill | None = None,
        line: Line | None = None,
    ) -> None:
        self._stand = stand
        self._line = line
        self._on_moment = on_moment
        self._guest = guest
        self._origin, self._target = hosts
        self._folder = folder
        self._events = events
        self._inbox = Inbox()
        self._stack = ExitStack()
        self._sides = self._stack.enter_context(Sides(guest, hosts, folder, events, self._inbox.put))
        self._move = move
        how = guest.plan.resolved.scenario.migration_of(move)
        self._stage = RunStage(guest.plan.resolved, how, guest.control, guest.load, self._target, events)
        self._stage.guest_has_moved = guest.has_moved
        ends = {"source": self._origin, "destination": self._target}
        self._stage.backends = lambda device, side: guest.kill_backend(device, ends[side])
        self._stage.rooms = lambda side: guest.disk_room(ends[side])
        self._stage.plugs = Plugging(guest, self._origin, self._stage.domain, events)
        self._script = ScriptRunner(script, self._stage, events, self._inbox.put, self._moment)
        self._running: tuple[RunFollower, Job] | None = None
        self._file: StateFile | None = None
        self._keeps_file = False
        self._waited: list[Endpoint] = []
        self._cores: dict[str, str] = {}
        #: As the guest left, what was plugged in before included.
        self._vcpus = 0
        self._suspended = False
        scenario = guest.plan.resolved.scenario
        #: Where a tap writes what it hears.
        self._stream = folder.file("stream") if scenario.tap else None
        #: Events from here on are of this migration.
        self._since = len(events.history()) - 1

    def __enter__(self) -> LiveMigration:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self, domain: libvirt.virDomain, how: Migration, *, paused: bool = False, suspended: bool = False
    ) -> SwitchOver:
        """Migrate; both sides stand still when this returns.  Raises MigrationError if it is given up.

        ``paused``: the guest stands still from before it on, if it does not already.  ``suspended``:
        it suspends itself to its memory before it begins.
        """
        deadline = Deadline(how.timeout_s, "the migration")
        source = self._sides.connect_source(deadline)
        self._stage.qemus.connected("source", source.monitor)
        self._stage.domain.is_here(domain)
        # What it plugs in is a part of the machine from here on.
        self._script.begin()
        self._script.happened("start")
        self._settle_start(deadline)
        with timed(self._events, "locks"):
            # With the disks that have been plugged in or out.
            self._sides.look_at_locks("begun")
        self._vcpus = count_vcpus(source.monitor)
        if self._guest.plan.resolved.scenario.guest.virtio_mem is not None:
            # The guest plugs it in as soon as it has the driver; what is looked at next is what there is.
            await_virtio_mem(source.monitor, self._events, deadline)
        # Opened while QEMU has them: the files' names go with it, their contents stay with us.
        ramblocks = source.ramblocks()
        images = source.open(ramblocks)
        places = query_map(source.monitor, [block.name for block in ramblocks])
        outside = self._outside(images, places)
        generation = generation_id(source.monitor)
        if self._ask_registers(domain) and paused:
            domain.suspend()
        holds = HoldKeeper(source.monitor, images, self._events, outside, self._script, self._folder.path)
        follower = RunFollower(
            self._inbox,
            holds,
            self._script,
            self._stage,
            self._sides,
            images,
            lambda: _copies(source, ramblocks, images),
            self._events,
            deadline,
            how.stuck_s,
            self,
        )
        self._guest.arrive(self._target)
        modes = Modes.of(how, ignore_shared=self._guest.plan.resolved.scenario.guest.shared is not None)
        self._stage.outcome.guest_runs = modes.lets_guest_run
        parameters = {"downtime-limit": how.downtime_limit_ms, **modes.qemu_parameters()}
        by_us = modes.direct and how.to == "host"
        credentials = self._credentials(modes.tls) if by_us and modes.tls else None
        capabilities = modes.capabilities() if by_us else ()
        settings = QemuSettings(capabilities, parameters, self._guest.baselines, credentials)
        if not by_us:
            settings.apply(source.monitor)
        if outside is not None and not self._guest.held:
            self._look_first(domain, holds)
        if suspended:
            self._suspended = True
            Suspension(self._guest.control, self._events).begin("source", self._origin.name)
        if self._line is not None:
            self._line.meet(deadline)
        job = self._start(domain, how, modes, settings, follower, deadline, images)
        self._running = follower, job
        there = follower.follow(job, deadline)
        if isinstance(job, SavedJob):
            images = {name: job.image(name, image) for name, image in images.items()}
        if isinstance(job, DirectJob) or modes.lets_guest_run:
            self._destination_has_all(there, deadline)
        written = self._host_written(generation, outside)
        return self._switch_over(there, images, places, holds, outside, written, follower)

    def _settle_start(self, deadline: Deadline) -> None:
        """Wait for what the script does before the migration."""
        try:
            self._script.settle(self._inbox.get, deadline)
        except DeadlineExceeded as error:
            raise OutOfTimeError(
                f"what the script does at start was not done within {deadline.seconds:g} s",
                hint="raise migration.timeout_s; a balloon, however, gets no memory that is in use",
            ) from error

    def _credentials(self, kind: Tls) -> Credentials:
        """What encrypts a migration past libvirt."""
        folders = {}
        for side, host in (("source", self._origin), ("destination", self._target)):
            if host.site.credentials is None:
                raise MachineryError(f"the {side} has no certificates and keys for an encrypted migration")
            folders[side] = host.site.credentials
        return Credentials(kind, folders, self._address)

    @property
    def _address(self) -> str:
        return self._target.migrate_uri.removeprefix("tcp://")

    def _ask_registers(self, domain: libvirt.virDomain) -> bool:
        """Ask the guest's processors, if they run: whether they do."""
        state, _ = domain.state()
        runs: bool = state != libvirt.VIR_DOMAIN_PAUSED
        if runs:
            self._stage.guest.ask_registers()
            self._guest.registers = self._stage.guest.registers
        else:
            # Asked before it was paused: over a migration that was given up, into this one.
            self._stage.guest.registers = self._guest.registers
        return runs

    def _start(
        self,
        domain: libvirt.virDomain,
        how: Migration,
        modes: Modes,
        settings: QemuSettings,
        follower: RunFollower,
        deadline: Deadline,
        images: Mapping[str, Image],
    ) -> Job:
        """Begin: by libvirt, past it, or by a file."""
        spec = self._guest.spec(self._target)
        route = self._hand_over_route(deadline) if how.hands_over else None
        if route is not None:
            spec = replace(spec, extra=(*spec.extra, *route.arguments))
        elif waits_for_a_stream(how.to) if how.to != "host" else modes.direct:
            spec = replace(spec, extra=(*spec.extra, *ARGUMENTS))
        xml = destination_xml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), spec)
        self._folder.write_text("destination.xml", xml)
        if how.to != "host":
            return self._start_saved(domain, xml, how, modes, follower, deadline, images)
        if modes.direct:
            follower.hands_over = route is not None
            return self._start_direct(domain, xml, how, settings, follower, route)
        own_disk = spec.disk is not None and not spec.disk.readonly
        uri, listen = self._way()
        own_disk = own_disk or self._guest.libvirt_has_disks
        copied = self._guest.copied_disks(self._target)
        request = MigrationRequest(
            uri, xml, modes.bandwidth, modes, own_disk, listen, copied.targets, self._address, copied.only_top
        )
        gate = self._stack.enter_context(ConfirmGate(self._guest.gate_socket(self._origin)))
        own, there = self._origin.open(through=gate.attach), self._target.connect()
        if modes.lets_guest_run:
            recoverable = PostcopyJob(domain, own, there, request, self._inbox, gate)
            self._stage.recoverable = recoverable
            recoverable.begin()
            return recoverable
        return MigrationJob.start(
            domain, own, there, request, self._inbox, gate, keeps_source=self._keeps_source
        )

    def _start_saved(
        self,
        domain: libvirt.virDomain,
        xml: str,
        how: Migration,
        modes: Modes,
        follower: RunFollower,
        deadline: Deadline,
        images: Mapping[str, Image],
    ) -> SavedJob:
        place = self._guest.state_file(self._folder, little_room=how.file.room is not None)
        self._file = StateFile(how.to, place, how.file, self._events)
        self._keeps_file = how.file.keep
        self._stack.callback(self._remove_file)

        def arrive() -> Endpoint:
            follower.arrive()
            assert self._sides.destination is not None
            return self._sides.destination

        hosts = self._origin, self._target
        crossing = Crossing(
            domain, *hosts, self._sides, how, modes, xml, self._file, self._events, deadline,
            self._inbox.put, arrive, images, follower.seen,
        )  # fmt: skip
        job = job_for(how.to, crossing)
        follower.by_file(source_ends=job.source_ends)
        self._running = follower, job
        job.begin()
        return job

    def _way(self) -> tuple[str, str | None]:
        """Where libvirt sends the guest: to the host, or to a tap before it; then also where that listens."""
        if self._stream is None:
            return self._target.migrate_uri, None
        port = self._origin.tap(self._target.address, self._stream)
        return f"tcp://127.0.0.1:{port}", self._target.address

    def _destination_has_all(self, there: libvirt.virDomain, deadline: Deadline) -> None:
        """Wait until the destination says so, as nobody else does; a guest that was let go stands still then.

        The source says that it has completed when the destination has sent its last word, which it
        does a moment before it says so itself.
        """

        def over(event: Event) -> bool:
            data = event.data.get("data")
            status = data.get("status") if isinstance(data, Mapping) else None
            ends = event.kind == "MIGRATION" and status in ("completed", "failed")
            return event.source == "destination.qmp" and (ends or event.kind == CLOSED)

        self._events.wait(over, deadline, after=self._since)
        if self._stage.outcome.guest_runs:
            self.monitor("destination").execute("stop")
            # libvirt has to know it as well, to be asked to resume it.
            there.suspend()

    def _hand_over_route(self, deadline: Deadline) -> HandOverRoute:
        """Sockets beside the destination's monitor, in a folder that both QEMUs see."""
        monitor = self._guest.monitor_socket(self._target)
        sockets = monitor.with_name("cpr.sock"), monitor.with_name("devices-in.sock")
        return HandOverRoute(self._sides.source.monitor, *sockets, deadline)

    def _start_direct(
        self,
        domain: libvirt.virDomain,
        xml: str,
        how: Migration,
        settings: QemuSettings,
        follower: RunFollower,
        route: HandOverRoute | None,
    ) -> DirectJob:
        put, keeps = self._inbox.put, self._keeps_source
        if route is not None:
            job: DirectJob = HandOver(domain, self._target, settings, put, route, keeps_source=keeps)
        else:
            job = DirectJob(domain, self._target, settings, put, keeps_source=keeps)
        self._stage.recoverable = job
        job.begin(xml)
        if job.over:
            return job
        follower.begun()
        destination = self._sides.destination
        assert destination is not None
        job.migrate(self._sides.source.monitor, destination.monitor, self._route(how))
        return job

    def _route(self, how: Migration) -> Route:
        """By what the stream goes, past libvirt."""
        # Beside the destination's monitor: a folder that both QEMUs of a lab see.
        folder, channels = self._guest.monitor_socket(self._target).parent, how.address == "channels"
        if how.over == "unix":
            return Unix(folder, channels=channels)
        if how.over in ("fd", "pipe"):
            return Descriptor(channels=channels, one_way=how.over == "pipe")
        if how.over == "exec":
            return Exec(folder, channels=channels)
        tap = None if self._stream is None else self._origin.tap(self._address, self._stream)
        return Tcp(self._address, tap, channels=channels)

    def resumed(self, deadline: Deadline) -> None:
        """The guest runs on its new host: the rest of the script."""
        # An action that the switch-over came upon is done here.
        self._script.settle(self._inbox.get, deadline)
        self._stage.guest_has_moved = True
        self._script.happened("resumed")
        self._script.settle(self._inbox.get, deadline)

    def abort(self, error: MachineryError) -> Abort:
        """What became of a migration that did not complete, when the script has done what it has begun."""
        # QEMU's own word may come after libvirt's; what it said before this answer has come before it.
        with contextlib.suppress(FreepageError):
            self._sides.source.monitor.execute("query-status")
        reason = ""
        if self._running is not None:
            follower, job = self._running
            follower.hear_rest(job)
            reason = follower.seen.reason
        self._script.settle(self._inbox.get, Deadline(GIVEN_UP_SECONDS, "the script's end"))
        text = f"{error.message} ({reason})" if reason else error.message
        return Abort(self.outcome(moved=False).ending, text)

    # --- for a person

    @property
    def _keeps_source(self) -> bool:
        return self._stand is not None and self._stand.keeps_source

    def _moment(self, moment: str, number: int) -> None:
        """What the script is told of, before it does anything."""
        # What is QEMU's own has been told as it came.
        if moment not in STATUSES and moment != "pass":
            self.moment(moment, number)
        if self._on_moment is not None:
            self._on_moment(moment)

    def moment(self, moment: str, number: int) -> None:
        """A moment has come: the run may have to stand still in it."""
        if self._stand is not None:
            self._stand.moment(moment, number, self._move, self._standing)

    def failed(self, words: str) -> None:
        """The migration is about to be given up: the run may have to stand still before."""
        if self._stand is not None:
            self._stand.failed(words, self._move, self._standing())

    def judged(self, memory: MemoryJudgement, *, last: bool) -> None:
        """The memory has been judged: the run may have to stand still; a source that was kept ends."""
        if self._stand is None:
            return
        self._stand.judged(memory, self._move, self._standing(), last=last)
        job = self._running[1] if self._running is not None else None
        # Of a guest that went through a file the source has ended as it was restored.
        if self._keeps_source and job is not None and not isinstance(job, SavedJob):
            job.end_source()
            self._wait_for_last_words(self._sides.source)

    def _standing(self) -> list[Standing]:
        """The QEMUs that are there."""
        ends = (self._sides.source, self._sides.destination)
        return [
            Standing(end.monitor.side, end.host, end.monitor)
            for end in ends
            if end is not None and end.process.here and Path(f"/proc/{end.monitor.pid}").exists()
        ]

    # --- of the outcome

    def monitor(self, side: str) -> Monitor:
        """QMP with the QEMU of one side.  Raises :class:`MachineryError` before it is connected."""
        end = self._sides.source if side == "source" else self._sides.destination
        if end is None:
            raise MachineryError("the destination's monitor is not connected yet")
        return end.monitor

    def outcome(self, *, moved: bool, stands_still: bool = False) -> MigrationOutcome:
        """How the migration ended, by both QEMUs and by what became of their processes.

        ``moved``: the guest is taken for moved.  ``stands_still``: the guest is meant to.
        """
        # libvirt ends one of the two; how it ended is known when the lab's init has reaped it.
        leaving = self._sides.source if moved else self._sides.destination
        with timed(self._events, "ends"):
            if leaving is not None:
                self._wait_for_last_words(leaving)
        with timed(self._events, "locks"):
            self._sides.look_at_locks("resumed" if moved else "given-up")
        history = self._events.history()
        source, destination = (
            self._with_core(account_of(side, history, since=self._since, words=self._qemu_words(side)))
            for side in ("source", "destination")
        )
        script = self._stage.outcome
        return MigrationOutcome(
            source,
            destination,
            moved,
            cancelled=script.cancelled,
            stands_still=stands_still,
            unasked=frozenset(self.gone),
            by_file=self._file is not None,
            broken=script.broken,
            switched=script.switched,
            let_go=script.guest_runs,
        )

    def _with_core(self, account: QemuAccount) -> QemuAccount:
        """Its core is looked for once: then it is in the run folder."""
        side = account.side
        if side not in self._cores:
            keep = self._folder.file(f"{side}.core")
            done = with_core(account, self._events.history(), since=self._since, keep=keep)
            if done.core is None:
                return account
            self._cores[side] = done.core
        return replace(account, core=self._cores[side])

    def locks(self) -> Sequence[LockLook]:
        """Who held the disks' images for writing, whenever that was looked at."""
        return locks_of(self._events.history(), since=self._since)

    @property
    def copies(self) -> Mapping[str, str]:
        """The images of disks that are copied with the guest: the source's, and the destination's."""
        return self._guest.copied_images(self._origin, self._target)

    def killed_from_outside(self, *sides: str) -> bool:
        """Whether the QEMU of one of these sides was killed (SIGKILL), by nobody of ours.

        The kernel does that where memory runs out: it says nothing of the migration.
        """
        history = self._events.history
        for side in sides:
            endpoint = self._sides.source if side == "source" else self._sides.destination
            if endpoint is None or not endpoint.process.here:
                continue
            if side == "destination" and self._stage.outcome.killed:
                continue
            self._wait_for_end(endpoint.monitor.pid, GONE_SECONDS)
            end = account_of(side, history(), since=self._since).end
            if end is not None and end.signal == "SIGKILL":
                return True
        return False

    @property
    def gone(self) -> tuple[str, ...]:
        """Sides whose QEMU ended during the migration, though nobody had asked it to."""
        return self._running[0].gone if self._running is not None else ()

    def _wait_for_last_words(self, leaving: Endpoint) -> None:
        """Until a QEMU that is ended has said all that it says, and how it ended is known."""

        def closed(event: Event) -> bool:
            return event.kind == CLOSED and event.source == f"{leaving.monitor.side}.qmp"

        # One that does not end goes on, which the account says as well.  It is waited for once.
        if leaving in self._waited:
            return
        self._waited.append(leaving)
        with contextlib.suppress(DeadlineExceeded):
            self._events.wait(closed, Deadline(END_SECONDS, "the end of a QEMU"), after=self._since)
        if leaving.process.here:
            self._wait_for_end(leaving.monitor.pid, GONE_SECONDS)

    def _wait_for_end(self, pid: int, seconds: float) -> None:
        def ended(event: Event) -> bool:
            return event.kind == "process-ended" and event.data.get("pid") == pid

        # One that does not end goes on, which the account says as well.
        with contextlib.suppress(DeadlineExceeded):
            self._events.wait(ended, Deadline(seconds, "the end of a QEMU"), after=self._since)

    def _qemu_words(self, side: str) -> tuple[str, ...]:
        """What a QEMU of this migration itself has said; nothing of one that never was."""
        if side == "destination" and self._sides.destination is None:
            return ()
        return last_words(self._sides.host(side).qemu_log(self._guest.name), lines=MOST_WORDS)

    @property
    def file(self) -> FileFacts | None:
        """The file through which the guest went; None: it went by none."""
        return self._file.facts if self._file is not None else None

    def keep_file(self) -> None:
        """Leave the file where it is: it is evidence."""
        self._keeps_file = True

    def _remove_file(self) -> None:
        if self._file is not None and not self._keeps_file:
            self._file.remove()

    @property
    def modes(self) -> Mapping[str, SideModes]:
        """What each side had on, by its QEMU's own word; of one that never said it, nothing."""
        return self._running[0].seen.modes if self._running is not None else {}

    @property
    def throttle(self) -> Sequence[ThrottleLook]:
        """How the source's QEMU slowed the guest down; nothing where it did not, and was not asked to."""
        if self._running is None:
            return ()
        seen = self._running[0].seen
        wanted = seen.throttles or any(look.slows for look in seen.throttle)
        return tuple(seen.throttle) if wanted else ()

    @property
    def throttles(self) -> Sequence[str]:
        """The capabilities to slow the guest down that were on, by the source's own word."""
        return self._running[0].seen.throttles if self._running is not None else ()

    @property
    def begun(self) -> bool:
        """Whether QEMU has begun to migrate: what goes wrong before is not the migration's."""
        begun = self._running is not None and self._running[0].seen.begun
        return begun or self._sides.destination is not None or self._file is not None or self._has_copied()

    def _has_copied(self) -> bool:
        """Whether QEMU has begun to copy a disk, which comes before it begins to migrate."""
        return any(
            event.kind.startswith("BLOCK_JOB_") and event.source == "source.qmp"
            for event in self._events.history()
            if event.seq > self._since
        )

    def vcpus(self, deadline: Deadline) -> tuple[VcpuCount, ...]:
        """How many vCPUs there are on both sides, and in the guest, which runs on its new host.

        Nothing where the scenario plugs none.
        """
        destination = self._sides.destination
        if destination is None or self._guest.plan.resolved.scenario.guest.topology is None:
            return ()
        online = self._guest.control.call("cpus-online", deadline=deadline)["online"]
        return (VcpuCount(self._vcpus, count_vcpus(destination.monitor), int(str(online))),)

    def news(self) -> ScriptNews:
        """What the script has found and brought since this was called last."""
        return self._stage.outcome.news()

    @property
    def file_findings(self) -> Sequence[Finding]:
        """What is wrong with how the guest came out of its file."""
        job = self._running[1] if self._running is not None else None
        return job.findings if isinstance(job, SavedJob) else []

    @property
    def last_message(self) -> int | None:
        """The guest's last kernel message before it was loaded; None: no action has restarted it."""
        return self._stage.guest.since

    @property
    def unreached(self) -> Sequence[Entry]:
        """Entries of the script that were not done, or not to their end."""
        return self._script.unreached

    @property
    def late(self) -> Sequence[str]:
        """What of the script came when its moment had passed, in words."""
        return (*self._script.late, *self._stage.outcome.late)

    def verify_owned(self, deadline: Deadline) -> int:
        """How many of the pages that the script took hold something wrong, now or before."""
        return self._stage.pages.verify(deadline)

    def _outside(
        self, images: Mapping[str, Image], places: Mapping[str, Sequence[Range]]
    ) -> OutsideWalk | None:
        """The second witness, unless the scenario does without."""
        scenario = self._guest.plan.resolved.scenario
        # A guest that writes on is walked at no moment that anything else is compared at.
        if not scenario.walk or scenario.migration_of(self._move).to == "background-snapshot":
            return None
        return self._stack.enter_context(OutsideWalk.begin(images, places))

    def _look_first(self, domain: libvirt.virDomain, holds: HoldKeeper) -> None:
        """Without holds, what is free is looked at before the migration begins."""
        stands, _ = domain.state()
        with self._events.step("look"):
            if stands == libvirt.VIR_DOMAIN_PAUSED:
                holds.start()
                return
            domain.suspend()
            try:
                holds.start()
            finally:
                domain.resume()

    def _host_written(self, generation: bytes | None, outside: OutsideWalk | None) -> HostWritten:
        destination = self._sides.destination
        there = generation_id(destination.monitor) if destination is not None else None
        resolved = self._guest.plan.resolved
        registers, ids = self._stage.guest.registers, (generation, there)
        return host_written(registers, outside, ids, resolved.accelerator, self._vcpus, self._events)

    def _switch_over(
        self,
        domain: libvirt.virDomain,
        images: Mapping[str, Image],
        places: Mapping[str, Sequence[Range]],
        holds: HoldKeeper,
        outside: OutsideWalk | None,
        written: HostWritten,
        follower: RunFollower,
    ) -> SwitchOver:
        destination = self._sides.destination
        if destination is None:
            raise MachineryError("the migration ended without ever having begun")
        ramblocks = destination.ramblocks()
        there = destination.open(ramblocks)
        record = self._guest.record_file(self._origin)
        self._origin.fetch_record(record)
        seen = follower.seen
        return SwitchOver(
            domain=domain,
            monitor=destination.monitor,
            source=Side(images, seen.others or {}),
            destination=Side(there, destination.copy(_others(ramblocks, there))),
            places=places,
            holds=holds,
            host_written=written,
            outside=outside,
            statistics=self._statistics(domain, seen),
            counters=seen.counters,
            completed_at=seen.completed_at if seen.completed_at is not None else self._events.now(),
            cost=follower.cost.cost(),
            devices=(seen.devices, self._arrived_devices(seen.devices, destination)),
            acted=acted_upon(self._events.history(), since=self._since),
            describe=lambda: self._describe(destination),
            record=record,
            stream=self._stream,
            traces=self._traces(),
            postcopy=self._postcopy(seen),
            handed_over=self._hands_over,
            pace=self._pace() if seen.at_switch is None else None,
            copied=self._guest.disk_images(self._origin, self._target),
        )

    def _pace(self) -> WirePace | None:
        """None: nobody listened, or the script has changed the limit."""
        scenario = self._guest.plan.resolved.scenario
        if self._stream is None or any(action.changes_limit for action in actions(scenario.script)):
            return None
        how = scenario.migration_of(self._move)
        history = [event for event in self._events.history() if event.seq > self._since]
        limit = Modes.of(how).bandwidth
        return wire_pace(self._stream, history, limit, self._left_for_the_pause(how, limit))

    def _left_for_the_pause(self, how: Migration, limit: int | None) -> int | None:
        """Bytes; None: the guest stands still for another reason, or is stopped whatever is left."""
        scenario = self._guest.plan.resolved.scenario
        stopped = any(action.action == "stop" for action in actions(scenario.script))
        # Such a mode stops the guest first.
        if limit is None or stopped or "mode" in how.parameters:
            return None
        rate = how.parameters.get("avail-switchover-bandwidth") or limit
        pause = how.parameters.get("downtime-limit", how.downtime_limit_ms)
        return rate * pause // 1000 if isinstance(rate, int) and isinstance(pause, int) else None

    def _statistics(self, domain: libvirt.virDomain, seen: LastLook) -> MigrationStatistics | None:
        job = self._running[1] if self._running is not None else None
        if isinstance(job, SavedJob):
            return seen.numbers if job.counted else None
        return seen.numbers or _from_libvirt(domain)

    def _postcopy(self, seen: LastLook) -> PostcopyMove | None:
        """None: the script has not asked for it, or QEMU had completed by then, with a guest that waits."""
        left = self._switched() or self._stage.outcome.guest_runs or self._hands_over
        if seen.at_switch is None or not left:
            return None
        return PostcopyMove(seen.at_switch, seen.page_counters, guest_ran=self._stage.outcome.guest_runs)

    @property
    def _hands_over(self) -> bool:
        return self._guest.plan.resolved.scenario.migration_of(self._move).hands_over

    def _switched(self) -> bool:
        history = self._events.history()
        return account_of("source", history, since=self._since).switched is not None

    def _arrived_devices(self, source: SavedState, destination: Endpoint) -> SavedState:
        # kvmclock_pre_save() takes KVM's clock for the guest's unless the guest was paused on this very
        # QEMU (hw/i386/kvm/clock.c): to save a guest that has not run here yet would set its clock wrong.
        # A guest without that clock, and without a source that shows whether there is one, is told apart.
        if self._stage.outcome.guest_runs:
            return SavedState(missing="the guest has run on the destination meanwhile")
        with timed(self._events, "devices"):
            kvm = self._guest.plan.resolved.accelerator == "kvm"
            if kvm and (source.has_kvmclock or source.missing is not None):
                return SavedState(missing=KVM_CLOCK, registers=registers_of(destination.monitor, apics=True))
            return destination.save_devices()

    def _describe(self, destination: Endpoint) -> Mapping[str, object]:
        """QEMU's own account of its devices' fields, by a socket that both of us see."""
        if self._suspended:
            raise MachineryError("a QEMU that has described a suspended guest aborts when that goes on")
        if unplugs(self._events.history()):
            raise MachineryError("a QEMU that describes its devices unplugs one of them for it")
        socket = self._guest.monitor_socket(self._target).with_name("devices.sock")
        if not destination.process.here:
            raise MachineryError("the QEMU is on another machine: it has no socket of ours to write to")
        return describe(destination.monitor, socket, socket)

    def _traces(self) -> tuple[Path, Path] | None:
        here, there = self._guest.trace_file(self._origin), self._guest.trace_file(self._target)
        if here is None or there is None:
            return None
        self._origin.fetch_record(here)
        self._target.fetch_record(there)
        return here, there


def _copies(
    source: Endpoint, ramblocks: Sequence[RamBlock], images: Mapping[str, Image]
) -> Mapping[str, Image | OSError]:
    """What is in no file, and goes with the source's QEMU: copied now."""
    for image in images.values():
        if isinstance(image, LiveImage):
            image.keep()
    return source.copy(_others(ramblocks, images))


def _others(ramblocks: Sequence[RamBlock], images: Mapping[str, Image]) -> list[RamBlock]:
    """RAMBlocks that are no files."""
    return [block for block in ramblocks if block.name not in images]


def _from_libvirt(domain: libvirt.virDomain) -> MigrationStatistics:
    stats: Mapping[str, Any] = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return from_job_stats(stats)
