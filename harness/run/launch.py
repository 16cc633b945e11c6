# SPDX-License-Identifier: GPL-2.0-or-later
"""How one migration is begun: by libvirt, past it, or by a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import libvirt

from harness.errors import LostError, MachineryError
from harness.events import Deadline
from harness.guest.domain import destination_xml
from harness.memory.access import Image
from harness.migration.confirm import ConfirmGate
from harness.migration.credentials import Credentials, Tls
from harness.migration.direct import ARGUMENTS, DirectJob
from harness.migration.hand_over import HandOver, HandOverRoute
from harness.migration.job import Job, MigrationJob
from harness.migration.modes import Modes
from harness.migration.postcopy_job import PostcopyJob
from harness.migration.request import MigrationRequest
from harness.migration.route import Descriptor, Exec, Route, Tcp, Unix
from harness.migration.settle import QemuSettings
from harness.run.follow import RunFollower
from harness.run.migration_parts import MigrationParts
from harness.run.saved import Crossing, SavedJob, job_for, waits_for_a_stream
from harness.run.saved.state_file import StateFile
from harness.run.sides import Endpoint
from harness.scenario.script import actions

if TYPE_CHECKING:
    from harness.scenario.load import Migration
    from harness.scenario.moments import Moment


class Launch:
    """``begun`` is told of a job before it begins, where that takes its time.

    ``meet`` is told of the moments before the source is told to migrate, past libvirt, and does what is to be
    done in them.

    ``keeps_source``: the source's QEMU stays when the guest has left.
    """

    def __init__(
        self,
        parts: MigrationParts,
        begun: Callable[[RunFollower, Job], None],
        meet: Callable[[Moment, Deadline], None],
        *,
        keeps_source: bool,
    ) -> None:
        self._parts = parts
        self._begun = begun
        self._meet = meet
        self._keeps_source = keeps_source
        #: The file through which the guest goes; None: it goes by none.
        self.file: StateFile | None = None
        #: Whether the file stays where it is.
        self.keeps_file = False

    def credentials(self, kind: Tls) -> Credentials:
        """What encrypts a migration past libvirt."""
        folders = {}
        for side, host in (("source", self._parts.origin), ("destination", self._parts.target)):
            if host.site.credentials is None:
                raise MachineryError(f"the {side} has no certificates and keys for an encrypted migration")
            folders[side] = host.site.credentials
        return Credentials(kind, folders, self._address)

    @property
    def _address(self) -> str:
        return self._parts.target.migrate_uri.removeprefix("tcp://")

    def start(
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
        spec = self._parts.guest.spec(self._parts.target)
        route = self._hand_over_route(deadline) if how.hands_over else None
        if route is not None:
            spec = replace(spec, extra=(*spec.extra, *route.arguments))
        elif waits_for_a_stream(how.to) if how.to != "host" else modes.direct:
            spec = replace(spec, extra=(*spec.extra, *ARGUMENTS, *self._own_words))
        xml = destination_xml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), spec)
        self._parts.folder.write_text("destination.xml", xml)
        if how.to != "host":
            return self._start_saved(domain, xml, how, modes, follower, deadline, images)
        if modes.direct:
            follower.hands_over = route is not None
            return self._start_direct(domain, xml, how, settings, follower, deadline, route)
        uri, listen = self._way()
        own_disk = spec.disk is not None and not spec.disk.readonly
        own_disk = own_disk or self._parts.guest.libvirt_has_disks
        copied = self._parts.guest.copied_disks(self._parts.target)
        request = MigrationRequest(
            uri, xml, modes.bandwidth, modes, own_disk, listen, copied.targets, self._address, copied.only_top
        )
        gate = self._parts.stack.enter_context(ConfirmGate(self._parts.guest.gate_socket(self._parts.origin)))
        own, there = self._parts.origin.open(through=gate.attach), self._parts.target.connect()
        if modes.lets_guest_run:
            recoverable = PostcopyJob(domain, own, there, request, self._parts.inbox, gate)
            self._parts.stage.recoverable = recoverable
            recoverable.begin()
            return recoverable
        return MigrationJob.start(
            domain, own, there, request, self._parts.inbox, gate, keeps_source=self._keeps_source
        )

    @property
    def _own_words(self) -> tuple[str, ...]:
        """What the destination's QEMU of this move is told, and no other."""
        return self._parts.scenario.moves[self._parts.move - 1].destination_args

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
        place = self._parts.guest.state_file(self._parts.folder, little_room=how.file.room is not None)
        self.file = StateFile(how.to, place, how.file, self._parts.events)
        self.keeps_file = how.file.keep
        self._parts.stack.callback(self._remove_file)

        def arrive() -> Endpoint:
            follower.arrive()
            assert self._parts.sides.destination is not None
            return self._parts.sides.destination

        hosts = self._parts.origin, self._parts.target
        crossing = Crossing(
            domain, *hosts, self._parts.sides, how, modes, xml, self.file, self._parts.events, deadline,
            self._parts.inbox.put, arrive, images, follower.seen,
        )  # fmt: skip
        job = job_for(how.to, crossing)
        follower.by_file(source_ends=job.source_ends)
        self._begun(follower, job)
        job.begin()
        return job

    def _remove_file(self) -> None:
        if self.file is not None and not self.keeps_file:
            self.file.remove()

    def _way(self) -> tuple[str, str | None]:
        """Where libvirt sends the guest: to the host, or to a tap before it; then also where that listens."""
        if self._parts.stream is None:
            return self._parts.target.migrate_uri, None
        port = self._parts.origin.tap(self._parts.target.address, self._parts.stream)
        return f"tcp://127.0.0.1:{port}", self._parts.target.address

    def _hand_over_route(self, deadline: Deadline) -> HandOverRoute:
        """Sockets beside the destination's monitor, in a folder that both QEMUs see."""
        monitor = self._parts.guest.monitor_socket(self._parts.target)
        sockets = monitor.with_name("cpr.sock"), monitor.with_name("devices-in.sock")
        return HandOverRoute(self._parts.sides.source.monitor, *sockets, deadline)

    def _start_direct(
        self,
        domain: libvirt.virDomain,
        xml: str,
        how: Migration,
        settings: QemuSettings,
        follower: RunFollower,
        deadline: Deadline,
        route: HandOverRoute | None,
    ) -> DirectJob:
        put, keeps = self._parts.inbox.put, self._keeps_source
        if route is not None:
            job: DirectJob = HandOver(domain, self._parts.target, settings, put, route, keeps_source=keeps)
        else:
            job = DirectJob(domain, self._parts.target, settings, put, keeps_source=keeps)
        self._parts.stage.recoverable = job
        self._begin_direct(job, xml)
        if job.over:
            return job
        follower.begun()
        destination = self._parts.sides.destination
        assert destination is not None
        ends = self._parts.sides.source.monitor, destination.monitor
        job.migrate(*ends, self._route(how), lambda moment: self._meet(moment, deadline))
        return job

    def _begin_direct(self, job: DirectJob, xml: str) -> None:
        """Start the destination's QEMU.  One that its own words keep from it is the file's fault."""
        try:
            job.begin(xml)
        except LostError:
            raise
        except MachineryError as error:
            if not self._own_words:
                raise
            key = f"moves.{self._parts.move - 1}.destination_args"
            raise self._parts.scenario.wrong(key, error.message) from error

    def _route(self, how: Migration) -> Route:
        """By what the stream goes, past libvirt."""
        # Beside the destination's monitor: a folder that both QEMUs of a lab see.
        parts = self._parts
        folder, channels = parts.guest.monitor_socket(parts.target).parent, how.address == "channels"
        mine = (entry for entry in parts.scenario.script if entry.move == parts.move)
        again = sum(action.connects_anew for action in actions(mine))
        if how.over == "unix":
            return Unix(folder, channels=channels)
        if how.over in ("fd", "pipe"):
            return Descriptor(channels=channels, one_way=how.over == "pipe", again=again)
        if how.over == "exec":
            return Exec(folder, channels=channels)
        tap = None if parts.stream is None else parts.origin.tap(self._address, parts.stream)
        ports = [parts.stack.enter_context(parts.target.reserve_port()) for _ in range(again)]
        return Tcp(
            self._address, tap, channels=channels, again=tuple(port.getsockname()[1] for port in ports)
        )
