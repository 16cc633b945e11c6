# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run does at the moments of its migration: see what can only be seen while both QEMUs live."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.errors import FreepageError, LostError
from harness.events import Deadline, EventStream, patience, working_time
from harness.evidence.check_times import timed
from harness.evidence.cost_meter import CostMeter
from harness.evidence.device_state import NOT_SAVED, SavedState
from harness.memory.access import Image
from harness.memory.digest import look
from harness.migration import device
from harness.migration.bitmaps import bitmaps_of
from harness.migration.cleanup import await_cleanup
from harness.migration.follow import Follower
from harness.migration.hold import HoldKeeper
from harness.migration.inbox import Inbox
from harness.migration.job import Job
from harness.migration.postcopy import PageCounters, SourceAtSwitch
from harness.migration.progress import ProgressWatch, Sample
from harness.migration.qmp import Monitor, QmpEvent
from harness.migration.settle import capabilities_in, parameters_in
from harness.migration.statistics import MigrationStatistics, from_query_migrate
from harness.migration.throttle import look_at_throttle, throttle_in
from harness.report.modes import SideModes
from harness.run.last_words import lost
from harness.run.sides import Sides
from harness.script.runner import ScriptRunner
from harness.script.stage import RunStage
from harness.verdict.bitmaps import CAPABILITY, DirtyBitmap
from harness.verdict.throttle import THROTTLES, ThrottleLook

#: For an answer that only reads counters.
_ANSWER_SECONDS: Final = 20.0


@dataclass(slots=True)
class LastLook:
    """What was seen at the source's last moments."""

    numbers: MigrationStatistics | None = None
    #: None: the source's QEMU could not be asked any more.
    counters: Mapping[str, object] | None = None
    #: RAMBlocks that are no files, as they were when the vCPUs stopped for the last time.
    others: Mapping[str, Image | OSError] | None = None
    completed_at: float | None = None
    #: QEMU has begun to migrate.
    begun: bool = False
    #: The state of the source's devices.
    devices: SavedState = NOT_SAVED
    #: What each side had on, by its own word while it migrated.
    modes: dict[str, SideModes] = field(default_factory=dict)
    #: QEMU's own reason for a migration that failed.
    reason: str = ""
    #: The source as it stood when it was to be switched to postcopy; None: it was not to.
    at_switch: SourceAtSwitch | None = None
    #: What QEMU counts of pages, in the end.
    page_counters: PageCounters | None = None
    #: How it slowed the guest down.
    throttle: list[ThrottleLook] = field(default_factory=list)
    #: The disks' dirty bitmaps, where the migration takes them along, as the source stood still.
    bitmaps: tuple[DirtyBitmap, ...] = ()

    @property
    def throttles(self) -> tuple[str, ...]:
        """The capabilities to slow the guest down that were on."""
        return tuple(name for name in THROTTLES if name in self.capabilities)

    @property
    def capabilities(self) -> Sequence[str]:
        """What the source's QEMU had on."""
        source = self.modes.get("source")
        return () if source is None else source.capabilities


class RunsByHand(Protocol):
    """Whoever may want the run to stand still."""

    def moment(self, moment: str, number: int) -> None:
        """A moment has come, of its name the ``number``th."""

    def failed(self, words: str) -> None:
        """The migration has failed, and is about to be given up."""


class RunFollower(Follower):
    """The follower of a run's migration.

    ``images``: the source's RAMBlocks that can be read while QEMU runs; ``copy``: copies what goes with it
    out of the source's QEMU, which stands still for good.
    """

    def __init__(
        self,
        inbox: Inbox,
        holds: HoldKeeper,
        script: ScriptRunner,
        stage: RunStage,
        sides: Sides,
        images: Mapping[str, Image],
        copy: Callable[[], Mapping[str, Image | OSError]],
        events: EventStream,
        deadline: Deadline,
        stuck_seconds: float,
        by_hand: RunsByHand,
    ) -> None:
        super().__init__(inbox, holds, script)
        self._by_hand = by_hand
        self._statuses: Counter[str] = Counter()
        self.seen = LastLook()
        self.cost = CostMeter()
        self._stage = stage
        self._entries = script
        self._sides = sides
        self._images = images
        self._copy = copy
        self._events = events
        self._deadline = deadline
        self._watch = ProgressWatch(patience(stuck_seconds), working_time())
        self._by_file = self._source_ends = False
        #: Both QEMUs have the guest's memory, from before it leaves the source.
        self.hands_over = False
        stage.qemus.connect = self._destination

    def by_file(self, *, source_ends: bool) -> None:
        """The guest goes through a file; ``source_ends``: its QEMU is gone when it has been written."""
        self._by_file, self._source_ends = True, source_ends

    def _step(self, event: QmpEvent, job: Job) -> None:
        # Before anything else is done in it: QEMU goes on.
        if event.name == "MIGRATION":
            status = str(event.data.get("status"))
            self._statuses[status] += 1
            self._by_hand.moment(status, self._statuses[status])
        elif event.name == "MIGRATION_PASS":
            number = event.data.get("pass")
            if isinstance(number, int):
                self._by_hand.moment("pass", number)
        super()._step(event, job)

    def begun(self) -> None:
        """The costs count from here; libvirt starts the destination's QEMU before the migration."""
        self.seen.begun = True
        if self._by_file:
            return
        try:
            self.arrive()
        except FreepageError:
            # A script that cancels this early has libvirt end it before anybody has seen it.
            if not self._stage.outcome.cancelled:
                raise
        # One that is cancelled as soon as it is active is not asked again before it has ended.
        self._ask_modes()

    def arrive(self) -> None:
        """The destination's QEMU is there."""
        if not self._source_ends:
            self._charge("source")
        self._destination()

    def _destination(self) -> Monitor:
        """Its QEMU's monitor, connected when it is asked for first."""
        if self._sides.destination is None:
            destination = self._sides.connect_destination(self._deadline)
            self._stage.qemus.connected("destination", destination.monitor)
            self._charge("destination")
        assert self._sides.destination is not None
        return self._sides.destination.monitor

    def _charge(self, side: str) -> None:
        end = self._sides.source if side == "source" else self._sides.destination
        if end is not None and end.process.here:
            self.cost.begin(side, end.process.pid)

    def active(self) -> None:
        """Ask once more: what was asked in the setup may have been set since."""
        self._ask_modes()
        # A guest that an earlier migration slowed down is to be free of it, whatever is on in this one.
        self._look_at_throttle()

    def passed(self) -> None:
        """QEMU slows the guest down at a bitmap sync, before it tells of it."""
        if self.seen.throttles:
            self._look_at_throttle()

    def _look_at_throttle(self) -> None:
        limits = self._sides.limits_vcpus
        # A QEMU that is gone by now, or that a script keeps from answering, has said nothing.
        with contextlib.suppress(FreepageError):
            monitor = self._sides.source.monitor
            self.seen.throttle.append(look_at_throttle(monitor, self._events.now(), limits=limits))

    def _ask_modes(self) -> None:
        """Note what the migration really has switched on: asked for is not the same as used."""
        for end in (self._sides.source, self._sides.destination):
            if end is None:
                continue
            # A QEMU that is gone by now, or that a script keeps from answering, has said nothing.
            with contextlib.suppress(FreepageError):
                on = [name for name, is_on in capabilities_in(end.monitor).items() if is_on]
                parameters = parameters_in(end.monitor)
                self.seen.modes[end.monitor.side] = SideModes(capabilities=on, parameters=parameters)
                self._events.emit("modes", side=end.monitor.side, capabilities=on, parameters=parameters)

    def failed(self) -> None:
        """Ask for QEMU's own words."""
        with contextlib.suppress(FreepageError):
            answer = self._sides.source.monitor.execute("query-migrate")
            self.seen.reason = str(answer.get("error-desc", "")) if isinstance(answer, Mapping) else ""

    def stopped(self) -> None:
        """Copy what is no file; digests of what is, where pages will be sent after the guest has left."""
        if self._source_ends:
            return
        # Threads that migrate may have ended by the time that the migration has.
        self.cost.look()
        source = self._sides.source
        self.seen.others = self._copy()
        if CAPABILITY in self.seen.capabilities:
            self.seen.bitmaps = bitmaps_of(source.monitor)
        if self._stage.outcome.switched or self._stage.outcome.guest_runs or self.hands_over:
            with self._events.step("switch"):
                counters = PageCounters.of(source.monitor.execute("query-migrate"))
                digests = {name: look(image) for name, image in self._images.items()}
                self.seen.at_switch = SourceAtSwitch(digests, counters, self._events.now())

    def completed(self) -> None:
        """The source's last moment: libvirt ends it when this returns."""
        source = self._sides.source.monitor
        source.expect_end()
        self.seen.completed_at = self._events.now()
        if self._source_ends:
            return
        self.cost.look()
        # The device's record ends, and its counters stand still, when QEMU has cleaned up.
        await_cleanup(source)
        if not self._by_file:
            # Of a file that has been written the guest may go on.
            with timed(self._events, "locks"):
                self._sides.look_at_locks("completed")
        # A QEMU that broke down just now leaves libvirt's numbers, and the device's record.
        with contextlib.suppress(FreepageError):
            # Before the devices are saved: QEMU counts the bytes of that as the migration's.
            answer = source.execute("query-migrate")
            self.seen.numbers = from_query_migrate(answer)
            self.seen.page_counters = PageCounters.of(answer)
            self.seen.throttle.append(throttle_in(answer, self._events.now(), over=True))
            self.seen.counters = device.read_counters(source, device.find_balloon(source))
        if self.seen.devices is NOT_SAVED:
            with timed(self._events, "devices"):
                self.seen.devices = self._sides.source.save_devices()

    def stuck(self) -> str | None:
        """No byte, no sync, no other status for long; the stacks of both QEMUs are kept then."""
        if self._stage.holds_stream or self._entries.busy:
            # Whatever stands still is the script's doing.
            self._watch.moved(working_time())
            return None
        with contextlib.suppress(FreepageError):
            source = self._sides.source.monitor
            answer = source.execute("query-migrate", seconds=_ANSWER_SECONDS)
            jobs = source.execute("query-block-jobs", seconds=_ANSWER_SECONDS)
            # One that has begun has said so; a file may be written by other means than a migration.
            begun = self._by_file or bool(self._statuses)
            self._watch.note(Sample.of(answer, jobs, begun=begun), working_time())
        words = self._watch.stood_still(working_time())
        if words is not None:
            self._events.emit("stuck", text=words)
            self._sides.keep_stacks()
            self._by_hand.failed(words)
            self._watch.moved(working_time())
        return words

    def destination_may_end(self) -> bool:
        """A script that kills it or cancels the migration ends it, and so does one that it has to refuse."""
        return self._stage.outcome.destination_may_end

    def told_to_end(self, side: str) -> bool:
        """By the script's ``quit``."""
        return side in self._stage.outcome.told_to_end

    def lost(self, side: str) -> LostError:
        """The error for a QEMU that is gone."""
        # A source that ends takes its destination with it, whose stream is over, and which may be the first
        # that we hear of. The other way round the source goes on.
        if side == "destination" and self._sides.source.monitor.ended():
            side = "source"
            self._progress.gone = [side]
        words = f"the {side}'s QEMU ended during the migration"
        return lost(self._sides.host(side), self._sides.guest_name, words)
