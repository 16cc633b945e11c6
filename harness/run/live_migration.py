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
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import libvirt

from harness.errors import DeadlineExceeded, FreepageError, MachineryError
from harness.events import Deadline, Event, EventStream
from harness.evidence.check_times import timed
from harness.evidence.host_writes import HostWritten, generation_id, host_written
from harness.evidence.msrs import read_msrs
from harness.evidence.switch_over import Abort, SwitchOver
from harness.guestview.msrs import RegisterReview, review_registers
from harness.hosts.interface import Host
from harness.memory.access import Image
from harness.memory.live_image import LiveImage
from harness.migration.bitmaps import bitmaps_of
from harness.migration.direct import DirectJob
from harness.migration.hold import HoldKeeper
from harness.migration.inbox import Inbox
from harness.migration.job import Job
from harness.migration.memory_map import Range, query_map
from harness.migration.modes import modes_of_move
from harness.migration.outside import OutsideWalk
from harness.migration.properties import machine_properties
from harness.migration.qmp import CLOSED, Monitor, QemuGone
from harness.migration.settle import QemuSettings
from harness.migration.statistics import (
    OutOfTimeError,
    RamBlock,
)
from harness.migration.vcpus import count_vcpus
from harness.migration.virtio_mem import await_virtio_mem
from harness.report.folder import RunFolder
from harness.report.modes import SideModes
from harness.run.endings import Endings
from harness.run.follow import RunFollower
from harness.run.guest import Guest
from harness.run.launch import Launch
from harness.run.migration_parts import MigrationParts
from harness.run.pausing import Standing
from harness.run.plugging import Plugging
from harness.run.saved import SavedJob
from harness.run.saved.state_file import FileFacts
from harness.run.sides import Endpoint, Sides
from harness.run.stand_still import StandStill
from harness.run.stillness import Stillness, in_no_file
from harness.run.suspending import Suspension
from harness.scenario.script import STATUSES
from harness.script.outcome import ScriptNews
from harness.script.runner import ScriptRunner
from harness.script.stage import RunStage
from harness.verdict.bitmaps import bitmap_findings
from harness.verdict.locks import LockLook
from harness.verdict.outcome import MigrationOutcome
from harness.verdict.properties import MachineProperties, property_findings
from harness.verdict.rules.vcpus import VcpuCount
from harness.verdict.throttle import ThrottleLook

if TYPE_CHECKING:
    from harness.run.several_guests.start_line import Line
    from harness.scenario.load import Migration
    from harness.scenario.moments import Moment
    from harness.scenario.script import Entry
    from harness.verdict.finding import Finding
    from harness.verdict.judge import MemoryJudgement

#: For what a script has begun when its migration is given up; the guest may be emulated.
GIVEN_UP_SECONDS: Final = 60.0

_Answer = TypeVar("_Answer")


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
        self._stage.outcome.to_fail = guest.plan.resolved.scenario.moves[move - 1].ends == "failed"
        ends = {"source": self._origin, "destination": self._target}
        self._stage.backends = lambda device, side: guest.kill_backend(device, ends[side])
        self._stage.rooms = lambda side: guest.disk_room(ends[side])
        self._stage.plugs = Plugging(guest, self._origin, self._stage.domain, events)
        self._script = ScriptRunner(script, self._stage, events, self._inbox.put, self._moment)
        self._running: tuple[RunFollower, Job] | None = None
        #: As the guest left, what was plugged in before included.
        self._vcpus = 0
        self._suspended = False
        #: Of the source, as the guest leaves, where the destination's QEMU is another.
        self._properties: MachineProperties | None = None
        scenario = guest.plan.resolved.scenario
        self._parts = MigrationParts(
            guest,
            self._origin,
            self._target,
            folder,
            events,
            self._inbox,
            self._stack,
            self._sides,
            self._stage,
            move,
            stream=folder.file("stream") if scenario.tap else None,
            since=len(events.history()) - 1,
        )
        self._launch = Launch(self._parts, self._begins, self._meet, keeps_source=self._keeps_source)
        self._endings = Endings(self._parts)

    def __enter__(self) -> LiveMigration:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begins(self, follower: RunFollower, job: Job) -> None:
        """A job that takes its time to begin is followed from before that."""
        self._running = follower, job

    def _meet(self, moment: Moment, deadline: Deadline) -> None:
        """Do what the script does in a moment before the source is told to migrate."""
        self._script.happened(moment)
        self._script.settle(self._inbox.get, deadline)

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
        modes = modes_of_move(self._guest.plan.resolved.scenario, self._move)
        self._stage.outcome.guest_runs = modes.lets_guest_run
        parameters = {"downtime-limit": how.downtime_limit_ms, **modes.qemu_parameters()}
        by_us = modes.direct and how.to == "host"
        credentials = self._launch.credentials(modes.tls) if by_us and modes.tls else None
        capabilities = modes.capabilities() if by_us else ()
        settings = QemuSettings(capabilities, parameters, self._guest.baselines, credentials)
        if not by_us:
            settings.apply(source.monitor)
        if outside is not None and not self._guest.held:
            self._look_first(domain, holds)
        if suspended:
            self._suspended = True
            Suspension(self._guest.control, self._events).begin("source", self._origin.name)
        if self._of_two_qemus:
            with self._events.step("machine"):
                self._properties = machine_properties(source.monitor)
        if self._line is not None:
            self._line.meet(deadline)
        job = self._launch.start(domain, how, modes, settings, follower, deadline, images)
        self._running = follower, job
        there = follower.follow(job, deadline)
        if isinstance(job, SavedJob):
            images = {name: job.image(name, image) for name, image in images.items()}
        if isinstance(job, DirectJob) or modes.lets_guest_run:
            self._destination_has_all(there, deadline)
        written = self._host_written(generation, outside)
        still = Stillness(self._parts, job, suspended=self._suspended)
        return still.switch_over(there, images, places, holds, outside, written, follower)

    @property
    def _of_two_qemus(self) -> bool:
        """Whether the destination's QEMU is another program, with the same machine as far as we know."""
        plan = self._guest.plan
        differ = plan.source_qemu.identity != plan.destination_qemu.identity
        scenario = plan.resolved.scenario
        # Over ssh so many questions take their time.
        return differ and scenario.remote is None and not scenario.moves[self._move - 1].destination_args

    def _settle_start(self, deadline: Deadline) -> None:
        """Wait for what the script does before the migration."""
        try:
            self._script.settle(self._inbox.get, deadline)
        except DeadlineExceeded as error:
            raise OutOfTimeError(
                f"what the script does at start was not done within {deadline.seconds:g} s",
                hint="raise migration.timeout_s; a balloon, however, gets no memory that is in use",
            ) from error

    def _ask_registers(self, domain: libvirt.virDomain) -> bool:
        """Ask the guest's processors, if they run: whether they do."""
        state, _ = domain.state()
        runs: bool = state != libvirt.VIR_DOMAIN_PAUSED
        if runs:
            self._stage.guest.ask_registers()
            self._guest.registers, self._guest.msrs = self._stage.guest.registers, self._stage.guest.msrs
        else:
            # Asked before it was paused: over a migration that was given up, into this one.
            self._stage.guest.registers, self._stage.guest.msrs = self._guest.registers, self._guest.msrs
        return runs

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

        self._events.wait(over, deadline, after=self._parts.since)
        if self._stage.outcome.guest_runs:
            self.monitor("destination").execute("stop")
            # libvirt has to know it as well, to be asked to resume it.
            there.suspend()

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
            self._endings.wait_for_last_words(self._sides.source)

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
        return self._endings.outcome(
            moved=moved, stands_still=stands_still, gone=self.gone, by_file=self._launch.file is not None
        )

    def locks(self) -> Sequence[LockLook]:
        """Who held the disks' images for writing, whenever that was looked at."""
        return self._endings.locks()

    @property
    def copies(self) -> Mapping[str, str]:
        """The images of disks that are copied with the guest: the source's, and the destination's."""
        return self._guest.copied_images(self._origin, self._target)

    def killed_from_outside(self, *sides: str) -> bool:
        """Whether the QEMU of one of these sides was killed (SIGKILL), by nobody of ours.

        The kernel does that where memory runs out: it says nothing of the migration.
        """
        return self._endings.killed_from_outside(*sides)

    @property
    def ends_guest(self) -> bool:
        """Whether the script has told the QEMU that had the guest to end."""
        return "source" in self._stage.outcome.told_to_end

    @property
    def gone(self) -> tuple[str, ...]:
        """Sides whose QEMU ended during the migration, though nobody had asked it to."""
        return self._running[0].gone if self._running is not None else ()

    @property
    def file(self) -> FileFacts | None:
        """The file through which the guest went; None: it went by none."""
        return self._launch.file.facts if self._launch.file is not None else None

    def keep_file(self) -> None:
        """Leave the file where it is: it is evidence."""
        self._launch.keeps_file = True

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
        return (
            begun
            or self._sides.destination is not None
            or self._launch.file is not None
            or self._has_copied()
        )

    def _has_copied(self) -> bool:
        """Whether QEMU has begun to copy a disk, which comes before it begins to migrate."""
        return any(
            event.kind.startswith("BLOCK_JOB_") and event.source == "source.qmp"
            for event in self._events.history()
            if event.seq > self._parts.since
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

    def bitmap_findings(self) -> Sequence[Finding]:
        """What is wrong with the disks' dirty bitmaps of a guest that has arrived, and stands still."""
        # A guest that has run there has written to its disks.  Of disks that are copied libvirt makes the
        # bitmaps there itself, once the guest goes on.
        if self._running is None or self._stage.outcome.guest_runs or self.copies:
            return ()
        here = self._running[0].seen.bitmaps
        if not here:
            return ()
        there = self._asked_there(bitmaps_of)
        if there is None:
            return ()
        how = self._guest.plan.resolved.scenario.migration_of(self._move)
        return tuple(bitmap_findings(here, there, how.parameters.get("block-bitmap-mapping")))

    def machine_findings(self) -> Sequence[Finding]:
        """What of the machine is otherwise than on the source; the guest has arrived, and stands still."""
        there = None if self._properties is None else self._asked_there(machine_properties)
        if self._properties is None or there is None:
            return ()
        resolved = self._guest.plan.resolved
        model = (resolved.scenario.guest.cpu or "").partition(",")[0]
        # Under KVM it is the host's own where the scenario names none.
        named = model not in ("max", "host") and (bool(model) or resolved.accelerator != "kvm")
        return tuple(property_findings(self._properties, there, named_cpu=named))

    def _asked_there(self, ask: Callable[[Monitor], _Answer]) -> _Answer | None:
        """The destination's QEMU says; None: it is gone, and how it ended is found by rules of its own."""
        try:
            return ask(self.monitor("destination"))
        except QemuGone:
            return None

    def msrs(self) -> tuple[RegisterReview, ...]:
        """What the guest's processors, which run on its new host, have in their registers.

        Nothing where they were not asked before, and of a guest that has suspended itself: it sets them anew.
        """
        before = self._stage.guest.msrs
        after = None if before is None or self._suspended else read_msrs(self._guest.control, len(before))
        return () if before is None or after is None else (review_registers(before, after),)

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
        vmxnet3 = any(nic.model == "vmxnet3" for nic in resolved.scenario.guest.all_nics)
        return host_written(
            registers, outside, ids, resolved.accelerator, self._vcpus, self._events, vmxnet3=vmxnet3
        )


def _copies(
    source: Endpoint, ramblocks: Sequence[RamBlock], images: Mapping[str, Image]
) -> Mapping[str, Image | OSError]:
    """What is in no file, and goes with the source's QEMU: copied now."""
    for image in images.values():
        if isinstance(image, LiveImage):
            image.keep()
    return source.copy(in_no_file(ramblocks, images))
