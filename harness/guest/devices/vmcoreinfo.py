# SPDX-License-Identifier: GPL-2.0-or-later
"""The device to which the guest's kernel gives its VMCOREINFO."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from harness.guest.devices.base import DomainDevice


@dataclass(frozen=True, slots=True)
class Vmcoreinfo(DomainDevice):
    """The outside walk reads the kernel's own description of its structures from it."""

    section = "features"

    def elements(self) -> Iterator[ET.Element]:
        """A feature of the machine, for libvirt."""
        yield ET.Element("vmcoreinfo", {"state": "on"})
