# SPDX-License-Identifier: GPL-2.0-or-later
"""The migration of a run: holds, switch-over, and what can be learnt only while both QEMUs live."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import libvirt

from harness.errors import FreepageError, LostError, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.host_meter import CostMeter
from harness.evidence.host_writes import HostWritten, generation_id, host_written
from harness.evidence.moved import Given, Moved, Side
from harness.guest.domain import destination_xml
from harness.hosts.interface import Host, QemuProcess
from harness.memory.access import Image
from harness.memory.registered import Source
from harness.migration import blocks, device
from harness.migration.cleanup import await_cleanup
from harness.migration.confirm import ConfirmGate
from harness.migration.direct import ARGUMENTS, DirectJob
from harness.migration.hold import HoldKeeper
from harness.migration.memory_map import query_map
from harness.migration.migrate import Answered, Handlers, Inbox, MigrationJob, MigrationRequest, follow
from harness.migration.modes import Modes
from harness.migration.outside import OutsideWalk
from harness.migration.qmp import Monitor, MonitorLoop, QmpEvent
from harness.migration.statistics import (
    MigrationError,
    MigrationStatistics,
    RamBlock,
    from_job_stats,
    from_query_migrate,
)
from harness.migration.transcript import Transcript
from harness.report.folder import RunFolder
from harness.run.guest import Guest
from harness.run.last_words import lost
from harness.script.runner import ScriptRunner
from harness.script.stage import RunStage

if TYPE_CHECKING:
    from harness.scenario.load import Migration
    from harness.scenario.script import Entry

#: For what a script has begun when its migration is given up; the guest may be emulated.
GIVEN_UP_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Seen:
    """What the handlers have put down."""

    numbers: MigrationStatistics | None = None
    #: None: the source's QEMU could not be asked any more.
    counters: dict[str, object] | None = None
    others: dict[str, Image | OSError] = field(default_factory=dict)
    completed_at: float | None = None
    #: The VM generation id that the source's QEMU says.
    generation: bytes | None = None
    #: QEMU's own reason for a migration that failed.
    reason: str = ""


def _from_libvirt(domain: libvirt.virDomain) -> MigrationStatistics:
    stats: Mapping[str, Any] = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return from_job_stats(stats)


class Move:
    """One migration from one host to the other.  ``close()`` when the memory was judged.

    ``folder`` is for this migration alone; ``script`` for what happens meanwhile.
    """

    def __init__(
        self,
        guest: Guest,
        hosts: tuple[Host, Host],
        folder: RunFolder,
        events: EventStream,
        script: Sequence[Entry] = (),
    ) -> None:
        self._guest = guest
        self._origin, self._target = hosts
        self._folder = folder
        self._events = events
        self._inbox = Inbox()
        self._seen = _Seen()
        self._cost = CostMeter()
        self._stack = contextlib.ExitStack()
        self._loop = self._stack.enter_context(MonitorLoop())
        self._transcript = self._stack.enter_context(Transcript(folder.file("qmp.jsonl")))
        self._destination: Monitor | None = None
        self._job: DirectJob | None = None
        self.stage = RunStage(guest.plan.resolved, guest.control, guest.load, self._target, events)
        self.script = ScriptRunner(script, self.stage, events, self._inbox.put)

    def close(self) -> None:
        """Close monitors and images."""
        self._stack.close()

    def __enter__(self) -> Move:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, domain: libvirt.virDomain, how: Migration) -> Moved:
        """Migrate; both sides stand still when this returns.  Raises MigrationError if it is given up."""
        deadline = Deadline(how.timeout_s, "the migration")
        source = self._connect("source", deadline)
        qemu, ramblocks = self._qemu(self._origin, source), blocks.query_ramblocks(source)
        self._write_command("source", qemu)
        # Opened while QEMU has them: the files' names go with it, their contents stay with us.
        images = self._open(qemu, ramblocks)
        others = [block for block in ramblocks if block.name not in images]
        outside = self._outside(source, images, ramblocks)
        self._seen.generation = generation_id(source)
        self.stage.guest.ask_registers()
        holds = HoldKeeper(source, images, self._events, outside, self._held, self._folder.path)
        handlers = Handlers(
            begun=lambda: self._begun(qemu, deadline),
            hold=holds.handle,
            stopped=lambda: self._stopped(qemu, others),
            completed=lambda: self._completed(source),
            lost=self._lost,
            event=self._event,
            answered=self.script.answered,
            destination_gone=lambda: self.stage.outcome.destination_may_end,
        )
        self._guest.arrive(self._target)
        shared = self._guest.plan.resolved.scenario.guest.shared
        modes = Modes.of(how, ignore_shared=shared is not None)
        source.execute(
            "migrate-set-parameters", {"downtime-limit": how.downtime_limit_ms, **modes.qemu_parameters()}
        )
        if outside is not None and not self._guest.held:
            self._look_first(domain, holds)
        spec = self._guest.spec(self._target)
        if modes.direct:
            spec = replace(spec, extra=(*spec.extra, *ARGUMENTS))
        xml = destination_xml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), spec)
        self._folder.write_text("destination.xml", xml)
        self.script.begin()
        self.script.happened("start")
        self.script.settle(self._inbox.get, deadline)
        job: MigrationJob | DirectJob
        if modes.direct:
            job = self._direct(domain, xml, modes, qemu, deadline)
        else:
            own_disk = spec.disk is not None and not spec.disk.readonly
            request = MigrationRequest(self._target.migrate_uri, xml, how.bandwidth, modes, own_disk)
            gate = self._stack.enter_context(ConfirmGate(self._guest.gate_socket(self._origin)))
            own, there = self._origin.open(through=gate.attach), self._target.connect()
            job = MigrationJob.start(domain, own, there, request, self._inbox, gate)
        moved = follow(job, self._inbox, handlers, deadline)
        written = self._host_written(self.stage.guest.registers, outside)
        return self._moved(moved, Side(images, self._seen.others), holds, outside, written)

    def _direct(
        self, domain: libvirt.virDomain, xml: str, modes: Modes, qemu: QemuProcess, deadline: Deadline
    ) -> DirectJob:
        """Past libvirt."""
        job = self._job = DirectJob(domain, self._target, modes.direct, self._inbox.put)
        job.begin(xml)
        self._begun(qemu, deadline)
        assert self._destination is not None
        address = self._target.migrate_uri.removeprefix("tcp://")
        job.migrate(self.stage.source, self._destination, address)
        return job

    def _host_written(self, registers: Source | None, outside: OutsideWalk | None) -> HostWritten:
        there = generation_id(self._destination) if self._destination is not None else None
        resolved = self._guest.plan.resolved
        ids = (self._seen.generation, there)
        vcpus = resolved.scenario.guest.vcpus
        return host_written(registers, outside, ids, resolved.accelerator, vcpus, self._events)

    def _outside(
        self, source: Monitor, images: Mapping[str, Image], ramblocks: Sequence[RamBlock]
    ) -> OutsideWalk | None:
        """The second witness, unless the scenario does without."""
        if not self._guest.plan.resolved.scenario.walk:
            return None
        return self._stack.enter_context(
            OutsideWalk.begin(images, query_map(source, [block.name for block in ramblocks]))
        )

    def _look_first(self, domain: libvirt.virDomain, holds: HoldKeeper) -> None:
        """Without holds, what is free is looked at before the migration begins."""
        with self._events.step("look"):
            domain.suspend()
            try:
                holds.start()
            finally:
                domain.resume()

    def resumed(self, deadline: Deadline) -> None:
        """The guest runs on its new host: the rest of the script."""
        # An action that the switch-over came upon is done here.
        self.script.settle(self._inbox.get, deadline)
        self.script.happened("resumed")
        self.script.settle(self._inbox.get, deadline)

    def _hear_the_end(self) -> None:
        """Hear QEMU's own word, which the script may wait for, and which may come after libvirt's."""
        # What QEMU said before this answer has come before it.
        self.stage.source.execute("query-status")
        for item in self._inbox.rest():
            if isinstance(item, Answered):
                self.script.answered(item)
            elif isinstance(item, QmpEvent) and item.side == "source":
                self._event(item)
        self.script.settle(self._inbox.get, Deadline(GIVEN_UP_SECONDS, "the script's end"))

    def given_up(self, error: MigrationError) -> Given:
        """What became of a migration that did not complete, when the script has done what it has begun."""
        self._hear_the_end()
        reason = f"{error.message} ({self._seen.reason})" if self._seen.reason else error.message
        return Given(self.stage.outcome.ended, reason)

    def _held(self, point: str, go_on: Callable[[], None]) -> None:
        self.script.happened(point, then=go_on)

    def _event(self, event: QmpEvent) -> None:
        if event.name == "MIGRATION_PASS":
            number = event.data.get("pass")
            self.script.happened("pass", number=number if isinstance(number, int) else None)
        elif event.name == "MIGRATION":
            status = str(event.data.get("status"))
            if status == "failed":
                with contextlib.suppress(FreepageError):
                    answer = self.stage.source.execute("query-migrate")
                    self._seen.reason = (
                        str(answer.get("error-desc", "")) if isinstance(answer, Mapping) else ""
                    )
            elif status == "active":
                self._note_modes()
            self.script.happened(status)
            if self._job is not None:
                self._job.event(event)

    def _note_modes(self) -> None:
        """What the migration really has switched on: asked for is not the same as used."""
        source = self.stage.source
        with contextlib.suppress(FreepageError):
            capabilities = source.execute("query-migrate-capabilities")
            parameters = source.execute("query-migrate-parameters")
            on = [entry["capability"] for entry in capabilities if entry["state"]]  # type: ignore[attr-defined]
            self._events.emit("modes", capabilities=on, parameters=parameters)

    def _connect(self, side: str, deadline: Deadline) -> Monitor:
        host = self._origin if side == "source" else self._target
        path = self._guest.monitor_socket(host)
        monitor = Monitor.connect(self._loop, side, path, self._events, self._transcript, deadline)
        self._stack.callback(monitor.close)
        monitor.listen(self._inbox.put)
        self.stage.qemus.connected(side, monitor)
        return monitor

    def _begun(self, source: QemuProcess, deadline: Deadline) -> None:
        self._charge("source", source)
        # libvirt has started the destination's QEMU before it starts the migration.
        if self._destination is None:
            self._destination = self._connect("destination", deadline)
            qemu = self._qemu(self._target, self._destination)
            self._charge("destination", qemu)
            self._write_command("destination", qemu)

    def _charge(self, side: str, qemu: QemuProcess) -> None:
        if qemu.here:
            self._cost.begin(side, qemu.pid)

    def _stopped(self, qemu: QemuProcess, ramblocks: Sequence[RamBlock]) -> None:
        # Threads that migrate may have ended by the time that the migration has.
        self._cost.look()
        self._seen.others.update(self._copy(qemu, ramblocks))

    def _completed(self, source: Monitor) -> None:
        """The source's last moment: libvirt ends it when this returns."""
        self._cost.look()
        source.expect_end()
        self._seen.completed_at = self._events.now()
        # The device's record ends, and its counters stand still, when QEMU has cleaned up.
        await_cleanup(source)
        # A QEMU that broke down just now leaves libvirt's numbers, and the device's record.
        with contextlib.suppress(FreepageError):
            self._seen.numbers = from_query_migrate(source.execute("query-migrate"))
            self._seen.counters = device.read_counters(source, device.find_balloon(source))

    def _lost(self, side: str) -> LostError:
        # A source that ends takes its destination with it, whose stream is over, and which may be the first
        # that we hear of. The other way round the source goes on.
        if side == "destination" and self.stage.source.ended():
            side = "source"
        host = self._origin if side == "source" else self._target
        return lost(host, f"the {side}'s QEMU ended during the migration")

    def _qemu(self, host: Host, monitor: Monitor) -> QemuProcess:
        return host.qemu(self._guest.monitor_socket(host), monitor.pid)

    def _open(self, qemu: QemuProcess, ramblocks: Sequence[RamBlock]) -> Mapping[str, Image]:
        images = qemu.open(ramblocks)
        for image in images.values():
            self._stack.callback(image.close)
        if not images:
            raise MachineryError("the guest's RAM is in no file: there is nothing to compare")
        return images

    def _copy(self, qemu: QemuProcess, ramblocks: Sequence[RamBlock]) -> Mapping[str, Image | OSError]:
        copies = qemu.copy(ramblocks)
        for copy in copies.values():
            if not isinstance(copy, OSError):
                self._stack.callback(copy.close)
        return copies

    def _moved(
        self,
        domain: libvirt.virDomain,
        source: Side,
        holds: HoldKeeper,
        outside: OutsideWalk | None,
        written: HostWritten,
    ) -> Moved:
        monitor = self._destination
        if monitor is None:
            raise MachineryError("the migration ended without ever having begun")
        qemu, ramblocks = self._qemu(self._target, monitor), blocks.query_ramblocks(monitor)
        images = self._open(qemu, ramblocks)
        others = self._copy(qemu, [block for block in ramblocks if block.name not in images])
        destination = Side(images, others)
        record = self._guest.record_file(self._origin)
        self._origin.fetch_record(record)
        seen = self._seen
        return Moved(
            domain=domain,
            monitor=monitor,
            source=source,
            destination=destination,
            holds=holds,
            host_written=written,
            outside=outside,
            statistics=seen.numbers or _from_libvirt(domain),
            counters=seen.counters,
            completed_at=seen.completed_at if seen.completed_at is not None else self._events.now(),
            cost=self._cost.cost(),
            record=record,
            traces=self._traces(),
        )

    def _traces(self) -> tuple[Path, Path] | None:
        here, there = self._guest.trace_file(self._origin), self._guest.trace_file(self._target)
        if here is None or there is None:
            return None
        self._origin.fetch_record(here)
        self._target.fetch_record(there)
        return here, there

    def _write_command(self, side: str, qemu: QemuProcess) -> None:
        self._folder.write_text(f"{side}.command", shlex.join(qemu.command()))
