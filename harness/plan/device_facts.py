# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices of a scenario may ask before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.hosts.netns import try_device
from harness.scenario.devices import Device
from harness.toolchain import QemuBinary
from harness.toolchain.probe import devices_of


@dataclass(frozen=True)
class ThisQemu:
    """A QEMU on this machine, which can be asked."""

    binary: QemuBinary

    @property
    def name(self) -> str:
        """Path and version."""
        return f"the QEMU {self.binary.path} ({self.binary.version})"

    @cached_property
    def _devices(self) -> frozenset[str]:
        return devices_of(self.binary.path)

    def has_device(self, name: str) -> bool:
        """Whether it lists a device of that name."""
        return name in self._devices


@dataclass(frozen=True, slots=True)
class PlannedFacts:
    """The facts of one run; see :class:`harness.scenario.devices.DeviceFacts`."""

    qemus: Sequence[ThisQemu]
    accelerator: str
    remote: bool

    def why_closed(self, path: str) -> str | None:
        """Why this user may not open a file of this machine's; None: may."""
        if not self.remote:
            try:
                try_device(Path(path))
            except OSError as error:
                return error.strerror or str(error)
        return None


def demand_devices(
    devices: Sequence[Device], qemus: Sequence[QemuBinary], accelerator: str, *, remote: bool
) -> None:
    """Raise :class:`harness.errors.InputError` for the first device that there cannot be.

    A QEMU on another machine is not asked: it says itself what it lacks.
    """
    known = [] if remote else [ThisQemu(qemu) for qemu in dict.fromkeys(qemus)]
    facts = PlannedFacts(known, accelerator, remote)
    for device in devices:
        device.demand(facts)
