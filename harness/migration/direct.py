# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration past libvirt: two QEMUs that libvirt has started, and our own monitors.

libvirt refuses some of QEMU's modes where the destination is to stand still in
the end (postcopy), and knows nothing of others.  The destination's domain is
started paused, waiting for a migration; everything else is QMP::

    job = DirectJob(origin_domain, target, settings, inbox.put)
    job.begin(xml)                       # the destination's QEMU is there
    job.migrate(source, destination, Tcp(address))
    job.event(event)                     # each of the source's MIGRATION events
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import libvirt

from harness.errors import FreepageError, MachineryError
from harness.events import Deadline
from harness.migration.inbox import Inbox, JobEnd
from harness.migration.qmp import CommandError, Monitor
from harness.migration.settle import QemuSettings

if TYPE_CHECKING:
    from harness.hosts.interface import Host
    from harness.migration.qmp import QmpEvent
    from harness.migration.route import Route
    from harness.scenario.moments import Moment

#: For the destination's command line.
ARGUMENTS: Final = ("-incoming", "defer")


class DirectJob:
    """See the module.  ``put`` gets a :class:`JobEnd` when it is over.

    ``keeps_source``: its QEMU is there until :meth:`end_source`.
    """

    def __init__(
        self,
        domain: libvirt.virDomain,
        target: Host,
        settings: QemuSettings,
        put: Callable[[JobEnd], None],
        *,
        keeps_source: bool = False,
    ) -> None:
        self._keeps_source = keeps_source
        self._domain = domain
        self._target = target
        self._settings = settings
        self._put = put
        self._there: libvirt.virDomain | None = None
        self._source: Monitor | None = None
        self._destination: Monitor | None = None
        self._by: Route | None = None
        self._over = False
        self._refused = False

    def begin(self, xml: str) -> None:
        """Start the destination's QEMU, which waits."""
        try:
            self._there = self._target.connect().createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            raise MachineryError(
                f"the destination cannot wait for the guest: {error.get_error_message()}"
            ) from error

    def migrate(
        self,
        source: Monitor,
        destination: Monitor,
        route: Route,
        meet: Callable[[Moment], None] = lambda _: None,
    ) -> None:
        """Begin, by a route.  A mode that QEMU refuses ends the migration with QEMU's own words.

        ``meet`` is told of each moment before the source is.
        """
        self._source, self._destination, self._by = source, destination, route
        try:
            for side in (destination, source):
                self._settings.apply(side)
            meet("destination-ready")
            route.lead(source, destination, lambda: meet("listening"))
        except CommandError as error:
            self._refuse(error.message)

    def recover(self, deadline: Deadline) -> None:
        """Connect both sides anew, once both are paused in postcopy; the migration goes on.

        Raises :class:`MachineryError` if there is no such migration, or a QEMU refuses.
        """
        source, destination, route = self._source, self._destination, self._by
        if source is None or destination is None or route is None:
            raise MachineryError("there is no migration that could be recovered")
        deadline.check()
        route.lead_again(source, destination)

    def event(self, event: QmpEvent) -> None:
        """One of the source's MIGRATION events, after everybody else has seen it."""
        status = str(event.data.get("status"))
        if self._over or self._source is None:
            return
        if status == "pre-switchover":
            # Refused by a QEMU whose migration was given up meanwhile: its next status says so.
            with contextlib.suppress(CommandError):
                self._source.execute("migrate-continue", {"state": "pre-switchover"})
        elif status == "completed":
            self._over = True
            if not self._keeps_source:
                self.end_source()
            self._put(JobEnd(self._there, None))
        elif status in ("failed", "cancelled"):
            self._give_up(f"QEMU reports a {status} migration")

    def end_source(self) -> None:
        """It keeps its memory, stopped, until somebody ends it: now."""
        self._domain.destroy()

    @property
    def refused(self) -> bool:
        """Whether a QEMU has refused it."""
        return self._refused

    @property
    def over(self) -> bool:
        """Whether it has ended, and has said so."""
        return self._over

    def gone(self) -> None:
        """A QEMU is gone: nobody else says so, as libvirt has no job that could fail."""
        self._give_up("a QEMU has ended")

    def release(self) -> None:
        """Nothing to release: the source ends when :meth:`event` has it end, after everybody has read it."""

    def cancel(self, inbox: Inbox) -> None:
        """Give up."""
        del inbox
        if self._source is not None:
            with contextlib.suppress(FreepageError):
                self._source.execute("migrate_cancel")
        self._give_up("cancelled")

    def _refuse(self, reason: str) -> None:
        """Give up what a QEMU has refused: its words are the reason, and not that a destination ends then."""
        self._refused = True
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if self._there is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._there.destroy()
        # What libvirt failed at last has nothing to do with it, and would be taken for the reason.
        libvirt.virResetLastError()
        self._put(JobEnd(None, libvirt.libvirtError(reason)))
