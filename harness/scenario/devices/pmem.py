# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent memory: an NVDIMM, whose content is memory of the guest's, and migrates as such."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser
from harness.scenario.memory import memory_blocks
from harness.scenario.values import MIB, Size


class Pmem(Device):
    """Persistent memory (an NVDIMM), a RAMBlock of its own, compared whole.

    The guest writes to it throughout (/dev/pmem0, past its page cache), and reads all of what it wrote.
    """

    qemu_device = "nvdimm"
    needs_lab = True

    device: Literal["pmem"] = "pmem"
    """Which device."""
    size: Annotated[Size, AfterValidator(memory_blocks)] = 128 * MIB
    """How large it is: whole 128MiB."""

    @property
    def only_of_one_guest(self) -> str | None:
        """A host keeps one file at a time."""
        return "a host of the lab keeps the file of one guest"

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """What finds it, and its driver."""
        return ("nfit", "nd_pmem")

    def _file(self, context: DeviceContext) -> Path:
        return context.memory / f"{context.folder.name}-{context.name}.pmem"

    def make_ready(self, context: DeviceContext, *, first: bool) -> None:
        """A file for this QEMU; that of one which has gone from this host takes memory."""
        del first
        for old in context.memory.glob(f"*-{context.name}.pmem"):
            old.unlink()

    def xml(self, context: DeviceContext) -> ET.Element:
        """The NVDIMM, for the node that there always is; the file is QEMU's to make."""
        element = ET.Element("memory", {"model": "nvdimm", "access": "shared"})
        ET.SubElement(ET.SubElement(element, "source"), "path").text = str(self._file(context))
        target = ET.SubElement(element, "target")
        ET.SubElement(target, "size", {"unit": "b"}).text = str(self.size)
        ET.SubElement(target, "node").text = "0"
        return element

    def reattach(self, element: ET.Element, context: DeviceContext) -> None:
        """Its file on this host."""
        for path in element.findall("source/path"):
            path.text = str(self._file(context))

    def boarding(self, guest: DeviceUser) -> None:
        """It is written whole, and written to from now on."""
        guest.use("pmem", "begin", self.size)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """Every page of it holds what was written last; then it is written to again."""
        guest.use("pmem", "check", self.size)
        return ()
