# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices of a scenario may ask before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

from harness.errors import InputError
from harness.hosts.netns import try_device
from harness.scenario.devices import Device
from harness.scenario.load import Scenario
from harness.toolchain import Kernel, QemuBinary
from harness.toolchain.device_modules import lacking_module
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
    machine: str = "pc"
    #: Whether QEMU opens files of this machine's kernel, and not those of another machine's.
    own_kernel: bool = True

    def why_closed(self, path: str) -> str | None:
        """Why this user may not open a file of this machine's; None: may, or it is another's."""
        if not self.remote and self.own_kernel:
            try:
                try_device(Path(path))
            except OSError as error:
                return error.strerror or str(error)
        return None


def device_facts(
    qemus: Sequence[QemuBinary], accelerator: str, machine: str, *, remote: bool, own_kernel: bool = True
) -> PlannedFacts:
    """What there is for the devices.  A QEMU on another machine is not asked: it says what it lacks."""
    known = [] if remote else [ThisQemu(qemu) for qemu in dict.fromkeys(qemus)]
    return PlannedFacts(known, accelerator, remote, machine, own_kernel)


#: Slots of the root bus that are for them.
MOST_DEVICES: Final = 16

#: Gives the error about the device of that number its place in the scenario's file.
Place: TypeAlias = Callable[[int, InputError], InputError]


def demand_devices(
    devices: Sequence[Device], facts: PlannedFacts, place: Place = lambda _, error: error
) -> None:
    """Raise :class:`harness.errors.InputError` for the first device that there cannot be."""
    if len(devices) > MOST_DEVICES:
        text = f"guest.devices: {len(devices)} devices and disks, and the bus has place for {MOST_DEVICES}"
        raise InputError(text)
    for number, device in enumerate(devices):
        if sum(other.device == device.device for other in devices[: number + 1]) > device.most:
            most = "one" if device.most == 1 else str(device.most)
            raise place(number, InputError(f"guest.devices: {device.device}: a guest can have {most} of it"))
        try:
            device.demand(facts)
        except InputError as error:
            raise place(number, error) from error


def demand_modules(devices: Sequence[Device], kernel: Kernel, place: Place = lambda _, error: error) -> None:
    """Raise :class:`harness.errors.InputError` for the first device that the kernel has no driver for."""
    kernel_name = f"the guest's kernel {kernel.release}"
    for number, device in enumerate(devices):
        lacking = lacking_module(kernel, device.guest_modules)
        if lacking is not None:
            error = InputError(
                f"guest.devices: {device.device}: {kernel_name} has no module {lacking}",
                hint="guest.kernel: generic, Debian's kernel for real machines, has drivers for most; "
                "trixie and newest have those that are newer",
            )
            raise place(number, error)


def own_modules(scenario: Scenario, kernel: Kernel, *, distribution: bool) -> tuple[str, ...]:
    """The modules that the scenario itself names.

    Raises :class:`harness.errors.InputError` for one that the kernel has not.
    """
    for number, name in enumerate(scenario.guest.modules):
        if distribution:
            words = "a distribution loads its modules by itself"
            raise scenario.wrong("guest.modules", words, hint="guest.commands.before: [[modprobe, NAME]]")
        if lacking_module(kernel, (name,)) is not None:
            words = f"the guest's kernel {kernel.release} has no module {name}"
            hint = "guest.kernel: generic, Debian's kernel for real machines, has most"
            raise scenario.wrong(f"guest.modules.{number}", words, hint=hint)
    return scenario.guest.modules


def place_in(scenario: Scenario) -> Place:
    """Places in this scenario's file, whose list comes after what other keys are short for."""
    guest = scenario.guest
    nics = len(guest.all_devices) - len(guest.nics)
    disks = nics - len(guest.disks)
    short = disks - len(guest.devices)

    def place(number: int, error: InputError) -> InputError:
        if number < short:
            return error
        parts = (("nics", nics), ("disks", disks), ("devices", short))
        name, first = next((name, first) for name, first in parts if number >= first)
        text = error.message.removeprefix("guest.devices: ")
        return scenario.wrong(f"guest.{name}.{number - first}", text, hint=error.hint)

    return place
