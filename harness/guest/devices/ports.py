# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's serial ports: its console, and the channel to its agent."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from harness.guest.devices.base import DomainDevice
from harness.hosts.interface import Sockets


@dataclass(frozen=True, slots=True)
class SerialPorts(DomainDevice):
    """Two ports, each of which connects to a socket of ours.  ``kind``: libvirt's name of such a port."""

    sockets: Sockets
    kind: str

    def elements(self) -> Iterator[ET.Element]:
        """The console is the first, the agent's channel the second."""
        for port, path in enumerate((self.sockets.console, self.sockets.control)):
            serial = ET.Element("serial", {"type": "unix"})
            ET.SubElement(serial, "source", {"mode": "connect", "path": str(path)})
            ET.SubElement(serial, "target", {"type": self.kind, "port": str(port)})
            yield serial

    def reattach(self, devices: ET.Element) -> None:
        """Their sockets on this host; libvirt shows the first port as a console, too."""
        sockets = {"0": self.sockets.console, "1": self.sockets.control}
        for kind in ("serial", "console"):
            for element in devices.findall(kind):
                source, target = element.find("source"), element.find("target")
                if source is not None and target is not None:
                    source.set("path", str(sockets[target.get("port", "0")]))
