# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that hands the guest's memory over to another QEMU: QEMU's mode cpr-transfer.

No page is sent.  The memory is in files without names, shared, and their descriptors go to
the other QEMU through a Unix socket, the channel ``cpr``; devices go through a second one, as in
any migration.  Both QEMUs have to be on one kernel, and to see the same folder; a lab's do.

The other QEMU reads that channel before it makes its machine, so that it has no monitor until the source has
been told to migrate (cpr_state_load() in QEMU's system/vl.c).  libvirt, which knows nothing of it, waits for
that monitor as it starts the domain; so it does in a thread of its own::

    job = HandOver(origin_domain, target, settings, inbox.put, HandOverRoute(source, sockets, deadline))
    job.begin(xml)                       # the source is told, and the destination's QEMU is there
    job.migrate(source, destination, route)
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libvirt

from harness.errors import MachineryError
from harness.events import Deadline
from harness.migration.direct import ARGUMENTS, DirectJob
from harness.migration.inbox import JobEnd
from harness.migration.qmp import CommandError, Monitor
from harness.migration.settle import QemuSettings

if TYPE_CHECKING:
    from harness.hosts.interface import Host
    from harness.migration.route import Route
    from harness.scenario.moments import Moment

#: What both QEMUs need, so that memory beside the guest's RAM can be handed over as well: ROMs, for one.
AUXILIARY_SHARED: Final = ("-machine", "aux-ram-share=on")
#: Between two looks at a socket that a QEMU is about to make.
_TURN_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class HandOverRoute:
    """By what a guest is handed over.  ``source`` is the QEMU that it leaves."""

    source: Monitor
    #: Sockets that both QEMUs see: for descriptors, and for the rest.
    cpr: Path
    main: Path
    deadline: Deadline

    @property
    def arguments(self) -> tuple[str, ...]:
        """For the destination's command line."""
        channel = {"channel-type": "cpr", "addr": _unix(self.cpr)}
        return (*ARGUMENTS, "-incoming", json.dumps(channel))


class HandOver(DirectJob):
    """See the module."""

    def __init__(
        self,
        domain: libvirt.virDomain,
        target: Host,
        settings: QemuSettings,
        put: Callable[[JobEnd], None],
        route: HandOverRoute,
        *,
        keeps_source: bool = False,
    ) -> None:
        super().__init__(domain, target, settings, put, keeps_source=keeps_source)
        self._route = route
        self._started = threading.Event()
        self._error: libvirt.libvirtError | None = None

    def begin(self, xml: str) -> None:
        """Tell the source, and wait until the destination's QEMU is there.

        A source that refuses ends the migration with QEMU's own words.  Raises :class:`MachineryError` if the
        destination does not start.
        """
        route, connection = self._route, self._target.open()

        def start() -> None:
            try:
                self._there = connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
            except libvirt.libvirtError as error:
                self._error = error
            self._started.set()

        # A daemon: a call into libvirt that waits for a QEMU must not keep the process alive.
        threading.Thread(target=start, name="hand-over", daemon=True).start()
        while not self._target.accepts(route.cpr):
            self._demand_start(self._started.wait(_TURN_SECONDS))
        channels = [
            {"channel-type": "main", "addr": _unix(route.main)},
            {"channel-type": "cpr", "addr": _unix(route.cpr)},
        ]
        try:
            self._settings.apply(route.source)
            route.source.execute("migrate", {"channels": channels})
        except CommandError as error:
            # It would wait for ever.
            with contextlib.suppress(libvirt.libvirtError):
                self._target.connect().lookupByUUID(self._domain.UUID()).destroy()
            self._refuse(error.message)
            return
        self._started.wait(route.deadline.timeout())
        self._demand_start(self._started.is_set())

    def _demand_start(self, over: bool) -> None:
        if self._error is not None:
            words = self._error.get_error_message()
            raise MachineryError(f"the destination cannot wait for the guest: {words}") from self._error
        self._route.deadline.check()
        if over and self._there is None:
            raise MachineryError("the destination's QEMU has not waited for the guest's memory")

    def migrate(
        self,
        source: Monitor,
        destination: Monitor,
        route: Route,
        meet: Callable[[Moment], None] = lambda _: None,
    ) -> None:
        """Have the destination listen for the devices; the source connects as soon as it does.

        That is at the hand-over's own socket, whatever ``route``; there is no moment to ``meet``.
        """
        del route, meet
        self._source, self._destination = source, destination
        try:
            self._settings.apply(destination)
            destination.execute("migrate-incoming", {"uri": f"unix:{self._route.main}"})
        except CommandError as error:
            self._refuse(error.message)


def _unix(path: Path) -> dict[str, object]:
    return {"transport": "socket", "type": "unix", "path": str(path)}
