# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that the scenario asks for, in a domain."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from harness.guest.devices.base import DomainDevice
from harness.scenario.devices import Device, DeviceContext


@dataclass(frozen=True, slots=True)
class ScenarioDevice(DomainDevice):
    """``number``: its place among those of the scenario, which is the same on both hosts."""

    device: Device
    context: DeviceContext
    number: int

    @property
    def alias(self) -> str:
        """Its name for libvirt, by which it is found again; libvirt leaves "ua-" to its users."""
        return f"ua-freepage-{self.number}"

    def elements(self) -> Iterator[ET.Element]:
        """Its XML, with the name added."""
        element = self.device.xml(self.context)
        if element is not None:
            ET.SubElement(element, "alias", {"name": self.alias})
            yield element

    def arguments(self) -> Iterator[str]:
        """Its arguments."""
        yield from self.device.arguments(self.context)

    def reattach(self, devices: ET.Element) -> None:
        """What differs on this host, by its own word."""
        for element in devices:
            if any(alias.get("name") == self.alias for alias in element.findall("alias")):
                self.device.reattach(element, self.context)
