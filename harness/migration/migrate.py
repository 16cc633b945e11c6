# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration: libvirt's ``migrate3`` in a thread of its own, followed by events.

libvirt blocks in ``migrate3`` until the guest has moved.  Everything that
happens meanwhile (passes, holds, a QEMU that dies) comes through our monitors
into one inbox, and the session's main thread works through it::

    inbox = Inbox()
    source.listen(inbox.put)
    destination.listen(inbox.put)
    job = MigrationJob.start(domain, connection, request, inbox)
    moved = follow(job, inbox, handlers, deadline)
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import libvirt

from harness.errors import DeadlineExceeded, LostError
from harness.events import Deadline
from harness.migration.confirm import ConfirmGate
from harness.migration.modes import PLAIN, Modes
from harness.migration.qmp import CLOSED, QemuGone, QmpEvent
from harness.migration.statistics import MigrationError

MIB: Final = 1 << 20

#: How long libvirt may take to give up a migration that was cancelled.
CANCEL_SECONDS: Final = 30.0

#: The source has stopped for good, or is about to say so: its RAM no longer changes by vCPUs.
SWITCH_OVER: Final = frozenset({"pre-switchover", "device"})


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """What is asked of libvirt.  ``bandwidth`` is in bytes a second; libvirt counts in MiB."""

    uri: str
    destination_xml: str
    bandwidth: int | None = None
    modes: Modes = PLAIN
    #: The guest writes to a disk that is a file of this machine.  libvirt takes that for a disk
    #: which the other host cannot see; here both hosts see the same file, opened without a cache.
    own_disk: bool = False

    def flags(self) -> int:
        """Live, and the destination stays paused: both sides stand still at switch-over."""
        flags: int = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PAUSED
        if self.own_disk:
            flags |= libvirt.VIR_MIGRATE_UNSAFE
        return flags | self.modes.flags()

    def parameters(self) -> dict[str, object]:
        """The typed parameters of ``migrate3``."""
        parameters: dict[str, object] = {
            libvirt.VIR_MIGRATE_PARAM_URI: self.uri,
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: self.destination_xml,
            **self.modes.parameters(),
        }
        if self.bandwidth is not None:
            # Rounded up: 0 would mean "no limit".
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = -(-self.bandwidth // MIB)
        return parameters


@dataclass(frozen=True, slots=True)
class JobEnd:
    """``migrate3`` has returned: with the destination's domain, or with an error."""

    domain: libvirt.virDomain | None
    error: libvirt.libvirtError | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Something that a script waits for in a thread has come, or has failed."""

    number: int
    error: Exception | None = None


Incoming: TypeAlias = QmpEvent | JobEnd | Answered


class Inbox:
    """What reaches the main thread, in order of arrival."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def put(self, item: Incoming) -> None:
        """Hand something on; never blocks."""
        self._queue.put(item)

    def get(self, deadline: Deadline) -> Incoming:
        """The next thing, or :class:`DeadlineExceeded`."""
        while True:
            try:
                return self._queue.get(timeout=deadline.timeout())
            except queue.Empty:
                deadline.check()

    def rest(self) -> Iterator[Incoming]:
        """What has come by now, without waiting."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()


class MigrationJob:
    """``migrate3``, running in a thread.  Use :meth:`start`."""

    def __init__(self, domain: libvirt.virDomain, gate: ConfirmGate) -> None:
        self._domain = domain
        self._gate = gate

    @classmethod
    def start(
        cls,
        domain: libvirt.virDomain,
        own: libvirt.virConnect,
        destination: libvirt.virConnect,
        request: MigrationRequest,
        inbox: Inbox,
        gate: ConfirmGate,
    ) -> MigrationJob:
        """Begin; the end arrives in ``inbox`` as a :class:`JobEnd`.

        ``own`` is a connection to the source for this job alone.  A client of
        libvirt 9.0 misses now and then that a second thread has something to send
        while a first one waits for an answer; the second, a cancel for instance,
        would then wait until the migration is over.  It goes through ``gate``.
        """

        def work() -> None:
            try:
                there = own.lookupByUUID(domain.UUID())
                moved = there.migrate3(destination, request.parameters(), request.flags())
            except libvirt.libvirtError as error:
                inbox.put(JobEnd(None, error))
            else:
                inbox.put(JobEnd(moved, None))

        # A daemon: when the run is interrupted, a call into a daemon that is being
        # killed must not keep the process alive.
        threading.Thread(target=work, name="migrate3", daemon=True).start()
        return cls(domain, gate)

    def release(self) -> None:
        """The source's QEMU has been read: libvirt may end it."""
        self._gate.release()

    def gone(self) -> None:
        """A QEMU is gone: nobody will read it any more, and libvirt's job ends by itself."""
        self.release()

    def cancel(self, inbox: Inbox) -> None:
        """Ask libvirt to give up, and wait until it has."""
        # It may have completed already; then there is nothing to give up, only to end.
        self.release()
        # An error: nothing to cancel any more, or libvirt is gone; the end says which.
        with contextlib.suppress(libvirt.libvirtError):
            self._domain.abortJob()
        deadline = Deadline(CANCEL_SECONDS, "giving up the migration")
        while not isinstance(inbox.get(deadline), JobEnd):
            pass


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the session does at the moments that matter; each runs in the main thread."""

    #: Both QEMUs are there and the migration is about to begin.
    begun: Callable[[], None]
    #: A hold of the device: the VM stands still and waits for ``cont``.
    hold: Callable[[Mapping[str, object]], None]
    #: The source's vCPUs have stopped for the last time.
    stopped: Callable[[], None]
    #: QEMU has completed; its process is still there until this returns.
    completed: Callable[[], None]
    #: Builds the error for a QEMU that is gone.
    lost: Callable[[str], LostError]
    #: Each event of the source, after what is done about it above.
    event: Callable[[QmpEvent], None] = lambda _: None
    #: What a script has waited for.
    answered: Callable[[Answered], None] = lambda _: None
    #: The destination's QEMU is gone.  True: that is nothing unusual.
    destination_gone: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Progress:
    stopped: bool = False
    completed: bool = False
    failure: str = ""
    gone: list[str] = field(default_factory=list)


class Job(Protocol):
    """A migration that can be given up."""

    def release(self) -> None:
        """The source's QEMU may end."""

    def gone(self) -> None:
        """A QEMU is gone that should not be."""

    def cancel(self, inbox: Inbox) -> None:
        """Give it up."""


def follow(job: Job, inbox: Inbox, handlers: Handlers, deadline: Deadline) -> libvirt.virDomain:
    """Work through the inbox until libvirt says that the guest has moved; its domain there."""
    progress = _Progress()
    try:
        while True:
            item = inbox.get(deadline)
            if isinstance(item, JobEnd):
                return _ended(item, progress, handlers)
            if isinstance(item, Answered):
                handlers.answered(item)
            else:
                _step(item, progress, handlers, job)
    except DeadlineExceeded as error:
        job.cancel(inbox)
        raise DeadlineExceeded(
            f"{error.message}; the migration was cancelled",
            hint="raise migration.timeout_s, or give it more bandwidth or more downtime",
        ) from None
    except QemuGone as error:
        # That it has ended is what matters, not what it was asked when it did.
        raise handlers.lost(error.side) from error
    except KeyboardInterrupt:
        job.cancel(inbox)
        raise


def _step(event: QmpEvent, progress: _Progress, handlers: Handlers, job: Job) -> None:
    if event.name == CLOSED:
        # libvirt ends the source's QEMU when the guest has moved.
        expected = progress.completed if event.side == "source" else handlers.destination_gone()
        if not expected:
            progress.gone.append(event.side)
            job.gone()
        return
    if event.side != "source":
        return
    if event.name == "FREE_PAGE_INFO_HOLD":
        handlers.hold(event.data)
    elif event.name == "MIGRATION":
        status = event.data.get("status")
        if status == "setup":
            handlers.begun()
        elif status in SWITCH_OVER and not progress.stopped:
            progress.stopped = True
            handlers.stopped()
        elif status == "completed":
            progress.completed = True
            handlers.completed()
            job.release()
        elif status == "failed":
            progress.failure = str(event.data.get("error-desc", "")) or "QEMU reports a failed migration"
    handlers.event(event)


def _ended(end: JobEnd, progress: _Progress, handlers: Handlers) -> libvirt.virDomain:
    if end.error is None:
        assert end.domain is not None
        return end.domain
    if progress.gone:
        raise handlers.lost(progress.gone[0]) from end.error
    reason = end.error.get_error_message() or str(end.error)
    raise MigrationError(
        f"the migration failed: {reason}" + (f" ({progress.failure})" if progress.failure else "")
    ) from end.error
