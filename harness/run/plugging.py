# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario's own disks and NICs, plugged in and out by a script, and the links of NICs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import DeadlineExceeded
from harness.events import Deadline, EventStream

if TYPE_CHECKING:
    from harness.hosts.interface import Host
    from harness.run.guest import Guest
    from harness.script.domain import ScriptDomain
    from harness.script.stage import RunStage


class Plugging:
    """Of one migration, before it begins: the guest is on ``host``."""

    def __init__(self, guest: Guest, host: Host, domain: ScriptDomain, events: EventStream) -> None:
        self._guest = guest
        self._host = host
        self._domain = domain
        self._events = events

    def plug(self, device: str, which: int) -> None:
        """Plug a device in by libvirt, and have the guest use it for the first time.

        Raises :class:`harness.errors.InputError` if libvirt refuses, and
        :class:`harness.errors.MachineryError` if the device does not work.
        """
        number, xml = self._guest.plug_xml(device, which, self._host)
        self._domain.attach(xml)
        self._guest.plugged(number, self._host, self._events)

    def set_link(self, nic: int, stage: RunStage, *, up: bool) -> None:
        """Take a NIC's link down or up, on the QEMU that the guest leaves."""
        stage.source.execute("set_link", {"name": self._guest.link_name(nic), "up": up})
        self._guest.linked(nic, up=up)

    def unplug(self, device: str, which: int, stage: RunStage, deadline: Deadline) -> bool:
        """Unplug it; whether the guest has let go of it by the deadline.  It is no part of the guest then."""
        number, xml = self._guest.plug_xml(device, which, self._host)
        self._domain.detach(xml)
        try:
            stage.await_event("source", lambda name, _: name == "DEVICE_DELETED", deadline)
        except DeadlineExceeded:
            return False
        self._guest.unplugged(number)
        return True
