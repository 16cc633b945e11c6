# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a guest's domain, each as libvirt's XML or QEMU's arguments."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.hosts.interface import Nic

Arm: TypeAlias = Literal["off", "hint", "info"]


_IOTHREAD: Final = "freepage-hint"


_BALLOON: Final = "virtio-balloon-device"


@dataclass(frozen=True, slots=True)
class Balloon:
    """The device under test: which arm, and what the oracle needs of it.

    ``hold`` names the points at which the device stops the guest for the harness
    (``request``, ``answer``); ``record`` is the file that it keeps for the oracle.
    """

    arm: Arm
    hold: tuple[str, ...] = ()
    record: Path | None = None

    def arguments(self) -> Iterator[str]:
        """The QEMU arguments that make the balloon device what the arm needs."""
        properties: list[str] = []
        if self.arm == "hint":
            # Upstream's hint wants a thread of its own: it takes blocks while the guest runs.
            yield from ("-object", f"iothread,id={_IOTHREAD}")
            properties += [f"iothread={_IOTHREAD}", "free-page-hint=on"]
        elif self.arm == "info":
            properties.append("free-page-info=on")
            if self.hold:
                properties.append(f"x-free-page-info-hold={','.join(self.hold)}")
        if self.record is not None:
            # Upstream's hints are recorded as well.
            properties.append(f"x-free-page-info-record={self.record}")
        for text in properties:
            # -global takes the rest of its argument as the value: a comma needs no doubling.
            yield from ("-global", f"{_BALLOON}.{text}")


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtio disk that both hosts see.

    Read-only, it may be open in both QEMUs at once, whatever is cached where.
    Written to, it must not be: the one that gives it up has to have written all
    before the other reads, so nothing may stay in a host's page cache.
    """

    path: Path
    kind: Literal["raw", "qcow2"] = "raw"
    readonly: bool = True


def _disk(devices: ET.Element, disk: Disk) -> None:
    element = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    driver = {"name": "qemu", "type": disk.kind}
    if not disk.readonly:
        driver["cache"] = "none"
    ET.SubElement(element, "driver", driver)
    ET.SubElement(element, "source", {"file": str(disk.path)})
    ET.SubElement(element, "target", {"dev": "vda", "bus": "virtio"})
    if disk.readonly:
        ET.SubElement(element, "readonly")


def _interface(devices: ET.Element, nic: Nic, driver: str) -> None:
    interface = ET.SubElement(devices, "interface")
    ET.SubElement(interface, "mac", {"address": nic.mac})
    ET.SubElement(interface, "model", {"type": "virtio"})
    # Said, as libvirt takes vhost by itself where the machine has it.
    ET.SubElement(interface, "driver", {"name": driver})
    ET.SubElement(interface, "rom", {"enabled": "no"})
    _reattach(interface, nic)


def _reattach(interface: ET.Element, nic: Nic) -> None:
    """Attach a NIC as a host wants it.  The guest cannot tell the difference."""
    for tag in ("source", "target", "backend"):
        for old in interface.findall(tag):
            interface.remove(old)
    if nic.tap is not None:
        interface.set("type", "ethernet")
        ET.SubElement(interface, "target", {"dev": nic.tap, "managed": "no"})
        return
    interface.set("type", "udp")
    relay, qemu = nic.ports
    source = ET.SubElement(interface, "source", {"address": "127.0.0.1", "port": str(relay)})
    ET.SubElement(source, "local", {"address": "127.0.0.1", "port": str(qemu)})
