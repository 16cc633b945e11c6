# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a guest's domain, each as libvirt's XML, QEMU's arguments, and what differs on a host."""

from __future__ import annotations

from harness.guest.devices.balloon import Arm, BalloonDevice
from harness.guest.devices.base import DomainDevice
from harness.guest.devices.dimm import Dimm, SharedMemory
from harness.guest.devices.disk import Disk
from harness.guest.devices.interface import Interface
from harness.guest.devices.ports import SerialPorts
from harness.guest.devices.scenario import ScenarioDevice
from harness.guest.devices.vmcoreinfo import Vmcoreinfo

__all__ = [
    "Arm",
    "BalloonDevice",
    "Dimm",
    "Disk",
    "DomainDevice",
    "Interface",
    "ScenarioDevice",
    "SerialPorts",
    "SharedMemory",
    "Vmcoreinfo",
]
