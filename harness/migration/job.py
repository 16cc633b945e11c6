# SPDX-License-Identifier: GPL-2.0-or-later
"""Who carries out a migration: libvirt's ``migrate3`` in a thread of its own.

libvirt blocks in ``migrate3`` until the guest has moved.  Its end arrives in the
inbox as a :class:`~harness.migration.inbox.JobEnd`.  A migration past libvirt is
:class:`harness.migration.direct.DirectJob`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final, Protocol

import libvirt

from harness.events import Deadline
from harness.migration.confirm import ConfirmGate
from harness.migration.inbox import Inbox, JobEnd
from harness.migration.qmp import QmpEvent
from harness.migration.request import MigrationRequest

#: How long libvirt may take to give up a migration that was cancelled.
CANCEL_SECONDS: Final = 30.0


class Job(Protocol):
    """A migration under way."""

    @property
    def refused(self) -> bool:
        """A QEMU has refused it, in words; a destination that waited for it was ended."""

    def event(self, event: QmpEvent) -> None:
        """One of the source's MIGRATION events, after everybody else has seen it."""

    def release(self) -> None:
        """The source's QEMU has been read, and may end."""

    def end_source(self) -> None:
        """A source that was kept until the memory was judged may end now."""

    def gone(self) -> None:
        """A QEMU is gone that should not be."""

    def cancel(self, inbox: Inbox) -> None:
        """Give it up."""


class MigrationJob:
    """``migrate3``, running in a thread.  Use :meth:`start`."""

    def __init__(
        self, domain: libvirt.virDomain, gate: ConfirmGate, arrived: Callable[[], None] | None = None
    ) -> None:
        self._domain = domain
        self._gate = gate
        self._arrived = arrived
        #: libvirt has words for a refusal, and ends its destination by itself.
        self.refused = False

    @classmethod
    def start(
        cls,
        domain: libvirt.virDomain,
        own: libvirt.virConnect,
        destination: libvirt.virConnect,
        request: MigrationRequest,
        inbox: Inbox,
        gate: ConfirmGate,
        *,
        keeps_source: bool = False,
    ) -> MigrationJob:
        """Begin; the end arrives in ``inbox`` as a :class:`JobEnd`.

        ``own`` is a connection to the source for this job alone.  A client of
        libvirt 9.0 misses now and then that a second thread has something to send
        while a first one waits for an answer; the second, a cancel for instance,
        would then wait until the migration is over.  It goes through ``gate``.

        ``keeps_source``: the end arrives as soon as the guest has; the source's QEMU is there until
        :meth:`end_source`.
        """

        def work() -> None:
            try:
                there = own.lookupByUUID(domain.UUID())
                moved = there.migrate3(destination, request.parameters(), request.flags())
            except libvirt.libvirtError as error:
                inbox.put(JobEnd(None, error))
            else:
                inbox.put(JobEnd(moved, None))

        def arrived() -> None:
            try:
                inbox.put(JobEnd(destination.lookupByUUID(domain.UUID()), None))
            except libvirt.libvirtError:
                # What is wrong is told by the end of migrate3.
                gate.release()

        # A daemon: when the run is interrupted, a call into a daemon that is being
        # killed must not keep the process alive.
        threading.Thread(target=work, name="migrate3", daemon=True).start()
        return cls(domain, gate, arrived if keeps_source else None)

    def event(self, event: QmpEvent) -> None:
        """Nothing to do: libvirt has monitors of its own."""

    def release(self) -> None:
        """The source's QEMU has been read: libvirt may end it, unless it is kept."""
        if self._arrived is None:
            self._gate.release()
        else:
            self._gate.when_held(self._arrived)

    def end_source(self) -> None:
        """Let libvirt end it."""
        self._gate.release()

    def gone(self) -> None:
        """A QEMU is gone: nobody will read it any more, and libvirt's job ends by itself."""
        self._gate.release()

    def cancel(self, inbox: Inbox) -> None:
        """Ask libvirt to give up, and wait until it has."""
        # It may have completed already; then there is nothing to give up, only to end.
        self._gate.release()
        # An error: nothing to cancel any more, or libvirt is gone; the end says which.
        with contextlib.suppress(libvirt.libvirtError):
            self._domain.abortJob()
        deadline = Deadline(CANCEL_SECONDS, "giving up the migration")
        while not isinstance(inbox.get(deadline), JobEnd):
            pass
