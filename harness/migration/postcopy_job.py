# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration to postcopy that libvirt carries out, and that can be recovered when it breaks.

libvirt's ``migrate3`` returns with an error when the connection breaks.  The guest then stays where it
is on both sides, and to libvirt its source is paused as ``VIR_DOMAIN_PAUSED_POSTCOPY_FAILED``: the same call
with ``VIR_MIGRATE_POSTCOPY_RESUME`` has it go on (virDomainMigrateStartPostCopy() in libvirt's
src/libvirt-domain.c).
So such an error is no end of the job, unless nobody recovers it::

    job = PostcopyJob(domain, own, destination, request, inbox, gate)
    job.begin()
    job.recover(deadline)           # both QEMUs are paused
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final

import libvirt

from harness.errors import MachineryError
from harness.events import Deadline
from harness.migration.confirm import ConfirmGate
from harness.migration.inbox import Inbox, JobEnd
from harness.migration.job import MigrationJob
from harness.migration.request import MigrationRequest

#: What libvirt answers to a call that it refuses, so that nothing has been resumed.
_REFUSED: Final = frozenset(
    {
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_NO_DOMAIN,
    }
)


class PostcopyJob(MigrationJob):
    """See the module.  The arguments are those of :meth:`MigrationJob.start`."""

    def __init__(
        self,
        domain: libvirt.virDomain,
        own: libvirt.virConnect,
        destination: libvirt.virConnect,
        request: MigrationRequest,
        inbox: Inbox,
        gate: ConfirmGate,
    ) -> None:
        super().__init__(domain, gate)
        self._own = own
        self._destination = destination
        self._request = request
        self._inbox = inbox
        self._broken = threading.Event()
        self._error: libvirt.libvirtError | None = None

    def begin(self) -> None:
        """Begin; the end arrives in the inbox, but for that of a connection which can be mended."""
        self._call(0)

    def recover(self, deadline: Deadline) -> None:
        """Connect both sides anew, and go on.

        Waits until libvirt has noticed that the connection is gone.  Raises
        :class:`MachineryError` if it has not by the deadline.
        """
        if not self._broken.wait(deadline.timeout()):
            raise MachineryError(
                f"libvirt has not noticed within {deadline.seconds:g} s that its migration broke"
            )
        self._broken.clear()
        self._call(libvirt.VIR_MIGRATE_POSTCOPY_RESUME)

    def gone(self) -> None:
        """A QEMU is gone: what was broken stays so."""
        super().gone()
        if self._broken.is_set():
            self._inbox.put(JobEnd(None, self._error))

    def cancel(self, inbox: Inbox) -> None:
        """Give up; of a migration that is broken nobody does any more for it."""
        if self._broken.is_set():
            self.release()
            return
        super().cancel(inbox)

    def _call(self, flags: int) -> None:
        def work() -> None:
            there = None
            try:
                there = self._own.lookupByUUID(self._domain.UUID())
                moved = there.migrate3(
                    self._destination, self._request.parameters(), self._request.flags() | flags
                )
            except libvirt.libvirtError as error:
                if there is None or error.get_error_code() in _REFUSED or not _waits(there):
                    self._inbox.put(JobEnd(None, error))
                    return
                self._error = error
                self._broken.set()
            else:
                self._inbox.put(JobEnd(moved, None))

        # As for MigrationJob: no call into a daemon that is being killed must keep the process alive.
        threading.Thread(target=work, name="migrate3", daemon=True).start()


def _waits(domain: libvirt.virDomain) -> bool:
    """Whether libvirt takes the guest for one whose migration can be recovered."""
    with contextlib.suppress(libvirt.libvirtError):
        return bool(domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED])
    return False
