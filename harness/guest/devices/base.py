# SPDX-License-Identifier: GPL-2.0-or-later
"""What every device of a domain has."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import ClassVar


class DomainDevice:
    """A device of the domain for one host."""

    __slots__ = ()

    #: The domain's section that its elements are in.
    section: ClassVar[str] = "devices"

    def elements(self) -> Iterator[ET.Element]:
        """The device for libvirt."""
        yield from ()

    def arguments(self) -> Iterator[str]:
        """Arguments for QEMU, for what libvirt has no words for."""
        yield from ()

    def reattach(self, devices: ET.Element) -> None:
        """Change what differs on this host in ``devices``, as libvirt has them on the source."""


def option(path: object) -> str:
    """A path inside an option of the form a=b,c=d, where QEMU reads ',,' as one comma."""
    return str(path).replace(",", ",,")
