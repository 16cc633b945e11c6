# SPDX-License-Identifier: GPL-2.0-or-later
"""The two QEMUs of one migration: their monitors, their processes, their memory.

with Sides(guest, (origin, target), folder, events, inbox.put) as sides:
source = sides.connect_source(deadline)
ramblocks = source.ramblocks()
images = source.open(ramblocks)     # what is a file; it outlives the QEMU
others = source.copy([block for block in ramblocks if block.name not in images])
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import FreepageError, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.device_state import SavedState, save
from harness.hosts.core_files import core_limit
from harness.hosts.image_locks import held_for_writing
from harness.hosts.interface import Host, QemuProcess
from harness.hosts.stacks import stacks_of
from harness.memory.access import Image
from harness.migration import blocks
from harness.migration.qmp import Monitor, MonitorLoop, QmpEvent
from harness.migration.statistics import RamBlock
from harness.migration.transcript import Transcript
from harness.report.folder import RunFolder
from harness.verdict.locks import LockMoment

if TYPE_CHECKING:
    from harness.run.guest import Guest

#: For the registers of all vCPUs of a QEMU that may hang.
_REGISTERS_SECONDS: Final = 20.0

SideName = Literal["source", "destination"]


@dataclass(frozen=True, eq=False, slots=True)
class Endpoint:
    """One of the QEMUs.  What is opened is closed with :class:`Sides`."""

    host: Host
    monitor: Monitor
    process: QemuProcess
    closing: contextlib.ExitStack
    folder: RunFolder

    def ramblocks(self) -> tuple[RamBlock, ...]:
        """What it has by now; an incoming migration may change a block's size."""
        return blocks.query_ramblocks(self.monitor)

    def open(self, ramblocks: Sequence[RamBlock]) -> Mapping[str, Image]:
        """The RAMBlocks that are files.  Raises :class:`MachineryError` if there are none."""
        images = self.process.open(ramblocks)
        for image in images.values():
            self.closing.callback(image.close)
        if not images:
            raise MachineryError("the guest's RAM is in no file: there is nothing to compare")
        return images

    def save_devices(self) -> SavedState:
        """The state of its devices and vCPUs; the guest has to stand still."""
        side = self.monitor.side
        file = self.folder.file(f"{side}.devices")

        def fetch() -> bytes:
            self.host.fetch_record(file)
            data = file.read_bytes()
            file.unlink()
            return data

        return save(self.monitor, self.host.record_path(file), fetch)

    def copy(self, ramblocks: Sequence[RamBlock]) -> Mapping[str, Image | OSError]:
        """Copies of RAMBlocks that are no files; an error for one that cannot be read."""
        copies = self.process.copy(ramblocks)
        for copy in copies.values():
            if not isinstance(copy, OSError):
                self.closing.callback(copy.close)
        return copies


class Sides:
    """Both ends of one migration; a context manager.  ``listen`` gets each QMP event."""

    def __init__(
        self,
        guest: Guest,
        hosts: tuple[Host, Host],
        folder: RunFolder,
        events: EventStream,
        listen: Callable[[QmpEvent], None],
    ) -> None:
        self._guest = guest
        self._origin, self._target = hosts
        self._folder = folder
        self._events = events
        self._listen = listen
        self._closing = contextlib.ExitStack()
        self._loop = self._closing.enter_context(MonitorLoop())
        self._transcript = self._closing.enter_context(Transcript(folder.file("qmp.jsonl")))
        self._source: Endpoint | None = None
        self._destination: Endpoint | None = None

    def __enter__(self) -> Sides:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    @property
    def source(self) -> Endpoint:
        """The QEMU that the guest is on."""
        if self._source is None:
            raise MachineryError("the source's monitor is not connected yet")
        return self._source

    @property
    def destination(self) -> Endpoint | None:
        """The QEMU that waits for the guest; None: there is none yet."""
        return self._destination

    @property
    def limits_vcpus(self) -> bool:
        """Whether these QEMUs can limit what a vCPU writes: with KVM's dirty ring they can."""
        resolved = self._guest.plan.resolved
        return resolved.accelerator == "kvm" and resolved.scenario.guest.kvm_dirty == "ring"

    @property
    def guest_name(self) -> str:
        """The guest's, in libvirt's and QEMU's logs."""
        return self._guest.name

    def host(self, side: str) -> Host:
        """The host of a side."""
        return self._origin if side == "source" else self._target

    def connect_source(self, deadline: Deadline) -> Endpoint:
        """Connect to the QEMU that the guest is on."""
        self._source = self._connect("source", deadline)
        return self._source

    def connect_destination(self, deadline: Deadline) -> Endpoint:
        """Connect to the QEMU that waits for the guest."""
        self._destination = self._connect("destination", deadline)
        return self._destination

    def look_at_locks(self, moment: LockMoment) -> None:
        """Put into the event stream which disk images each QEMU holds for writing."""
        held = {
            end.monitor.side: held_for_writing(end.monitor.pid)
            for end in (self._source, self._destination)
            if end is not None and end.process.here
        }
        self._events.emit("image-locks", moment=moment, held=held)

    def keep_stacks(self) -> None:
        """Keep what both QEMUs are at: the stacks of their threads, and the guest's registers."""
        for end in (self._source, self._destination):
            if end is None:
                continue
            side = end.monitor.side
            if end.process.here:
                self._folder.write_text(f"{side}.stacks", stacks_of(end.monitor.pid))
            # A QEMU that does not answer has no registers for us.
            with contextlib.suppress(FreepageError):
                registers = end.monitor.execute(
                    "human-monitor-command", {"command-line": "info registers -a"}, seconds=_REGISTERS_SECONDS
                )
                self._folder.write_text(f"{side}.registers", "\n".join(str(registers).splitlines()))

    def _connect(self, side: SideName, deadline: Deadline) -> Endpoint:
        host = self.host(side)
        path = self._guest.monitor_socket(host)
        monitor = Monitor.connect(self._loop, side, path, self._events, self._transcript, deadline)
        self._closing.callback(monitor.close)
        monitor.listen(self._listen)
        process = host.qemu(path, monitor.pid)
        self._folder.write_text(f"{side}.command", shlex.join(process.command()))
        state = monitor.execute("query-status")
        running = isinstance(state, Mapping) and state.get("running") is True
        self._events.emit(
            "qemu-attached",
            source=f"{side}.qmp",
            pid=monitor.pid,
            running=running,
            at=time.time(),
            core_limit=core_limit(monitor.pid) if process.here else None,
        )
        return Endpoint(host, monitor, process, self._closing, self._folder)
