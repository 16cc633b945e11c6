# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's NIC."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from harness.guest.devices.base import DomainDevice
from harness.hosts.interface import Nic


@dataclass(frozen=True, slots=True)
class Interface(DomainDevice):
    """The NIC, attached as the host wants it.

    ``vhost``: the host's kernel serves it, instead of QEMU; for one with a tap.
    """

    nic: Nic
    vhost: bool = False
    #: Libvirt's name of the model.
    model: str = "virtio"
    queues: int = 1
    #: The socket of another process that serves it, if one does.
    served_at: str | None = None
    #: What QEMU calls it, where libvirt is not to choose.
    alias: str | None = None

    def elements(self) -> Iterator[ET.Element]:
        """The NIC with the run's own address."""
        interface = ET.Element("interface")
        ET.SubElement(interface, "mac", {"address": self.nic.mac})
        ET.SubElement(interface, "model", {"type": self.model})
        if self.model == "virtio" and self.served_at is None:
            # Said, as libvirt takes vhost by itself where the machine has it.
            driver = {"name": "vhost" if self.vhost else "qemu"}
            if self.queues > 1:
                driver["queues"] = str(self.queues)
            ET.SubElement(interface, "driver", driver)
        ET.SubElement(interface, "rom", {"enabled": "no"})
        if self.alias is not None:
            ET.SubElement(interface, "alias", {"name": self.alias})
        self._attach(interface)
        yield interface

    def reattach(self, devices: ET.Element) -> None:
        """The guest cannot tell the difference."""
        found = devices.findall("interface")
        for interface in found:
            mac = interface.find("mac")
            # It may have others; and of a single one a scenario may have changed the address.
            if len(found) == 1 or (mac is not None and mac.get("address") == self.nic.mac):
                self._attach(interface)

    def _attach(self, interface: ET.Element) -> None:
        for tag in ("source", "target", "backend"):
            for old in interface.findall(tag):
                interface.remove(old)
        if self.served_at is not None:
            interface.set("type", "vhostuser")
            ET.SubElement(interface, "source", {"type": "unix", "path": self.served_at, "mode": "server"})
            return
        if self.nic.tap is not None:
            interface.set("type", "ethernet")
            ET.SubElement(interface, "target", {"dev": self.nic.tap, "managed": "no"})
            return
        interface.set("type", "udp")
        relay, qemu = self.nic.ports
        source = ET.SubElement(interface, "source", {"address": "127.0.0.1", "port": str(relay)})
        ET.SubElement(source, "local", {"address": "127.0.0.1", "port": str(qemu)})
