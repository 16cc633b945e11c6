# SPDX-License-Identifier: GPL-2.0-or-later
"""Both sides as they stand still after a migration: all that is kept for the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import libvirt

from harness.errors import MachineryError
from harness.evidence.acted_upon import acted_upon, unplugs
from harness.evidence.check_times import timed
from harness.evidence.device_state import SavedState, describe, registers_of
from harness.evidence.host_writes import HostWritten
from harness.evidence.outcomes import account_of
from harness.evidence.switch_over import PostcopyMove, Side, SwitchOver
from harness.evidence.wire_pace import wire_pace
from harness.memory.access import Image
from harness.migration.hold import HoldKeeper
from harness.migration.job import Job
from harness.migration.memory_map import Range
from harness.migration.modes import Modes
from harness.migration.outside import OutsideWalk
from harness.migration.statistics import MigrationStatistics, RamBlock, from_job_stats
from harness.run.follow import LastLook, RunFollower
from harness.run.migration_parts import MigrationParts
from harness.run.saved import SavedJob
from harness.run.sides import Endpoint
from harness.scenario.script import actions

if TYPE_CHECKING:
    from harness.scenario.load import Migration
    from harness.verdict.wire import WirePace

#: Why devices are not compared under KVM; see docs/found.md.
KVM_CLOCK: Final = "under KVM a QEMU that saves a guest before it has run it sets the guest's clock wrong"


class Stillness:
    """``job``: the migration that has come to its end; ``suspended``: its guest had suspended itself."""

    def __init__(self, parts: MigrationParts, job: Job, *, suspended: bool) -> None:
        self._parts = parts
        self._job = job
        self._suspended = suspended

    def switch_over(
        self,
        domain: libvirt.virDomain,
        images: Mapping[str, Image],
        places: Mapping[str, Sequence[Range]],
        holds: HoldKeeper,
        outside: OutsideWalk | None,
        written: HostWritten,
        follower: RunFollower,
    ) -> SwitchOver:
        """What is known of both, and how to read it; ``domain``: on the destination."""
        destination = self._parts.sides.destination
        if destination is None:
            raise MachineryError("the migration ended without ever having begun")
        ramblocks = destination.ramblocks()
        there = destination.open(ramblocks)
        record = self._parts.guest.record_file(self._parts.origin)
        self._parts.origin.fetch_record(record)
        seen = follower.seen
        return SwitchOver(
            domain=domain,
            monitor=destination.monitor,
            source=Side(images, seen.others or {}),
            destination=Side(there, destination.copy(in_no_file(ramblocks, there))),
            places=places,
            holds=holds,
            host_written=written,
            outside=outside,
            statistics=self._statistics(domain, seen),
            counters=seen.counters,
            completed_at=seen.completed_at if seen.completed_at is not None else self._parts.events.now(),
            cost=follower.cost.cost(),
            devices=(seen.devices, self._arrived_devices(seen.devices, destination)),
            acted=acted_upon(self._parts.events.history(), since=self._parts.since),
            describe=lambda: self._describe(destination),
            record=record,
            stream=self._parts.stream,
            traces=self._traces(),
            postcopy=self._postcopy(seen),
            handed_over=self._hands_over,
            pace=self._pace() if seen.at_switch is None else None,
            copied=self._parts.guest.disk_images(self._parts.origin, self._parts.target),
        )

    def _pace(self) -> WirePace | None:
        """None: nobody listened, or the script has changed the limit."""
        scenario = self._parts.scenario
        if self._parts.stream is None or any(action.changes_limit for action in actions(scenario.script)):
            return None
        how = scenario.migration_of(self._parts.move)
        history = [event for event in self._parts.events.history() if event.seq > self._parts.since]
        limit = Modes.of(how).bandwidth
        return wire_pace(self._parts.stream, history, limit, self._left_for_the_pause(how, limit))

    def _left_for_the_pause(self, how: Migration, limit: int | None) -> int | None:
        """Bytes; None: the guest stands still for another reason, or is stopped whatever is left."""
        scenario = self._parts.scenario
        stopped = any(action.action == "stop" for action in actions(scenario.script))
        # Such a mode stops the guest first.
        if limit is None or stopped or "mode" in how.parameters:
            return None
        rate = how.parameters.get("avail-switchover-bandwidth") or limit
        pause = how.parameters.get("downtime-limit", how.downtime_limit_ms)
        return rate * pause // 1000 if isinstance(rate, int) and isinstance(pause, int) else None

    def _statistics(self, domain: libvirt.virDomain, seen: LastLook) -> MigrationStatistics | None:
        job = self._job
        if isinstance(job, SavedJob):
            return seen.numbers if job.counted else None
        return seen.numbers or _from_libvirt(domain)

    def _postcopy(self, seen: LastLook) -> PostcopyMove | None:
        """None: the script has not asked for it, or QEMU had completed by then, with a guest that waits."""
        left = self._switched() or self._parts.stage.outcome.guest_runs or self._hands_over
        if seen.at_switch is None or not left:
            return None
        return PostcopyMove(
            seen.at_switch, seen.page_counters, guest_ran=self._parts.stage.outcome.guest_runs
        )

    @property
    def _hands_over(self) -> bool:
        return self._parts.scenario.migration_of(self._parts.move).hands_over

    def _switched(self) -> bool:
        history = self._parts.events.history()
        return account_of("source", history, since=self._parts.since).switched is not None

    def _arrived_devices(self, source: SavedState, destination: Endpoint) -> SavedState:
        # kvmclock_pre_save() takes KVM's clock for the guest's unless the guest was paused on this very
        # QEMU (hw/i386/kvm/clock.c): to save a guest that has not run here yet would set its clock wrong.
        # A guest without that clock, and without a source that shows whether there is one, is told apart.
        if self._parts.stage.outcome.guest_runs:
            return SavedState(missing="the guest has run on the destination meanwhile")
        with timed(self._parts.events, "devices"):
            kvm = self._parts.guest.plan.resolved.accelerator == "kvm"
            if kvm and (source.has_kvmclock or source.missing is not None):
                return SavedState(missing=KVM_CLOCK, registers=registers_of(destination.monitor, apics=True))
            return destination.save_devices()

    def _describe(self, destination: Endpoint) -> Mapping[str, object]:
        """QEMU's own account of its devices' fields, by a socket that both of us see."""
        if self._suspended:
            raise MachineryError("a QEMU that has described a suspended guest aborts when that goes on")
        if unplugs(self._parts.events.history()):
            raise MachineryError("a QEMU that describes its devices unplugs one of them for it")
        socket = self._parts.guest.monitor_socket(self._parts.target).with_name("devices.sock")
        if not destination.process.here:
            raise MachineryError("the QEMU is on another machine: it has no socket of ours to write to")
        return describe(destination.monitor, socket, socket)

    def _traces(self) -> tuple[Path, Path] | None:
        here, there = (
            self._parts.guest.trace_file(self._parts.origin),
            self._parts.guest.trace_file(self._parts.target),
        )
        if here is None or there is None:
            return None
        self._parts.origin.fetch_record(here)
        self._parts.target.fetch_record(there)
        return here, there


def in_no_file(ramblocks: Sequence[RamBlock], images: Mapping[str, Image]) -> list[RamBlock]:
    """RAMBlocks that are no files."""
    return [block for block in ramblocks if block.name not in images]


def _from_libvirt(domain: libvirt.virDomain) -> MigrationStatistics:
    stats: Mapping[str, Any] = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return from_job_stats(stats)
