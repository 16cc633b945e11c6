# SPDX-License-Identifier: GPL-2.0-or-later
"""What a device of the guest's is made of.

One class is all that a new device takes::

    class Rng(Device):
        \"\"\"A source of random numbers.\"\"\"

        qemu_device = "virtio-rng-pci"

        device: Literal["rng"] = "rng"
        \"\"\"Which device.\"\"\"
        rate: int | None = None
        \"\"\"Bytes a second at most.\"\"\"

        def xml(self, context: DeviceContext) -> ET.Element:
            element = ET.Element("rng", {"model": "virtio"})
            ET.SubElement(element, "backend", {"model": "builtin"})
            return element

A scenario then has it by ``guest.devices: [{device: rng}]``.  Its docstrings are its
documentation, in docs/scenario.md and in the JSON Schema.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal, Protocol, TypeAlias
from uuid import UUID, uuid5

from harness.errors import InputError
from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Section


def slot_of(machine: str, number: int) -> int:
    """The slot of the root bus that the device of that number has.

    Libvirt gives out slots from below, and a q35 has devices of its own at the end.
    """
    return (0x08 if "q35" in machine else 0x10) + number


def address_of(machine: str, number: int) -> str:
    """The same slot, as the guest calls it."""
    return f"00:{slot_of(machine, number):02x}.0"


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """The guest and the host that a device's QEMU is started for."""

    #: The name of the host, ``source`` or ``destination``, and of the one on which the guest was started.
    host: str
    first_host: str
    #: The guest's UUID: the same on both hosts, another one in each run.
    guest: UUID
    #: The machine type, such as ``pc``.
    machine: str
    accelerator: str
    #: Of the run: a folder for the sockets of this QEMU, and one that both hosts see.
    folder: Path = Path()
    shared: Path = Path()
    #: The host's folder in the file system that its guests' memory is in.
    memory: Path = Path()
    #: For each host a folder that is a small file system, where the scenario wants one.
    rooms: Path = Path()
    #: The run's own folder, for files that are too large for memory.
    kept: Path = Path()
    #: The words that start each of the programs that devices need.
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Which of the scenario's devices it is, from 0: the same on both hosts.
    number: int = 0
    #: The workload works on this device, a disk: nobody else writes to it.
    at_work: bool = False
    #: Of a NIC that is plugged in: its network; of another device: the first NIC's, if that is there.
    link: NicLink | None = None

    @property
    def name(self) -> str:
        """What QEMU calls the device, and all that belongs to it."""
        return f"freepage{self.number}"

    @property
    def pcie(self) -> bool:
        """Whether the machine has PCI Express."""
        return "q35" in self.machine

    @property
    def slot(self) -> int:
        """A slot of the root bus that is this device's alone."""
        return slot_of(self.machine, self.number)

    @property
    def place(self) -> str:
        """That slot, as properties of QEMU's ``-device``."""
        return f"bus={'pcie.0' if self.pcie else 'pci.0'},addr={self.slot:#x}"

    @property
    def pci_address(self) -> str:
        """The same slot, as the guest calls it."""
        return address_of(self.machine, self.number)

    def socket(self, name: str) -> Path:
        """A socket of this device on this host, in front of this QEMU."""
        return self.folder / f"{self.number}-{name}"

    def uuid(self, *, each_host: bool) -> UUID:
        """A UUID for a device: one for each host, or the same on both."""
        return uuid5(self.guest, self.host if each_host else self.first_host)


@dataclass(frozen=True, slots=True)
class NicLink:
    """A NIC of the guest's on a network: which of its NICs, from 0, and the addresses of both ends."""

    number: int
    mac: str
    address: str
    prefix: int
    #: The lab's own address there.
    lab: str
    #: False: a script has taken the link down.
    up: bool = True


@dataclass(frozen=True, slots=True)
class HelperProgram:
    """A program on the host that serves a device: QEMU connects to a socket of it."""

    #: By the name that the toolchain has for it, such as ``swtpm``.
    name: str
    #: ``{fd}`` stands for the number of the listening socket, which it inherits.
    arguments: tuple[str, ...]
    socket: Path
    #: QEMU listens there, and the program connects to it: it is started once QEMU does.
    connects: bool = False
    #: Of what it says only the end is kept: it has a line for each packet, say.
    talks: bool = False


class DeviceError(Exception):
    """What is wrong with a device: it does not answer (``silent``), or not as it must."""

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class QemuFacts(Protocol):
    """A QEMU that is about to run the guest."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def has_device(self, name: str) -> bool:
        """Whether ``-device help`` lists a device of that name."""


class DeviceFacts(Protocol):
    """What there is for a guest: the QEMUs of both hosts, and the machine."""

    @property
    def qemus(self) -> Sequence[QemuFacts]:
        """Those that can be asked: between remote machines, none."""

    @property
    def accelerator(self) -> str:
        """``kvm`` or ``tcg``."""

    def why_closed(self, path: str) -> str | None:
        """Why this user may not open a file of the machine's, such as ``/dev/vhost-vsock``; None: may.

        Between remote machines, too, None: they are not asked.
        """

    @property
    def remote(self) -> bool:
        """Whether the hosts are two machines of the user's own."""

    @property
    def machine(self) -> str:
        """The machine type."""


class DeviceUser(Protocol):
    """A guest that runs, and can be had to use its devices."""

    @property
    def context(self) -> DeviceContext:
        """The guest, and the host that it runs on."""

    @property
    def notes(self) -> MutableMapping[str, str]:
        """What the device has to remember of one look for the next: its own, all through the run."""

    def call(self, verb: str, *words: str | int) -> Mapping[str, object]:
        """Have the guest's agent do something; what it answers."""

    def use(self, name: str, action: str, *words: str | int) -> str:
        """Have the guest use a device (``vm-images/guest/devices``); the value that it answers.

        Raises :class:`DeviceError` if the device is silent, or does not what it must.
        """


class ArrivedGuest(DeviceUser, Protocol):
    """A guest that runs on its new host."""

    def wait_for(self, event: str) -> bool:
        """Whether QEMU says so (a QMP event) since the look at this device began; waits for it."""

    def is_announced(self) -> bool:
        """Of a NIC: whether QEMU has told its network where it is now; waits for it."""

    def wait_until(self, holds: Callable[[], bool]) -> bool:
        """Wait for something that no event tells; false if it does not come about."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Have QEMU do something (QMP); what it answers."""


class Device(Section):
    """A device of the guest's, beside those that every guest has."""

    #: QEMU's name of it, which both QEMUs have to know; empty: nothing is asked of them.
    qemu_device: ClassVar[str] = ""
    #: Files of the machine's that QEMU has to open, each with the kernel module that makes it.
    machine_files: ClassVar[Mapping[str, str]] = MappingProxyType({})
    #: Programs of the host's that it needs, by the toolchain's names for them.
    programs: ClassVar[tuple[str, ...]] = ()
    #: How many a guest can have of it.
    most: ClassVar[int] = 1
    #: It needs files or sockets that both hosts see: a lab's.
    needs_lab: ClassVar[bool] = False
    #: It needs PCI Express: machine type q35.
    needs_pcie: ClassVar[bool] = False

    device: str
    """Which device."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        DEVICES.add(cls)

    @property
    def only_of_one_guest(self) -> str | None:
        """Why no two guests of a lab can have it, in words; None: each can have its own."""
        return None

    @property
    def comes_later(self) -> bool:
        """Whether it is not there when the guest boots: a script plugs it in."""
        return False

    def title(self, context: DeviceContext) -> str:  # noqa: ARG002 - for those of which there are several
        """What reports call it."""
        return self.device

    def xml(self, context: DeviceContext) -> ET.Element | None:  # noqa: ARG002 - for those that have some
        """The device for libvirt, a child of ``<devices>``; None where it has no words for it.

        On its way to another host the guest keeps what libvirt made of it (addresses, say);
        :meth:`reattach` changes what differs there.
        """
        return None

    def reattach(self, element: ET.Element, context: DeviceContext) -> None:
        """Change what differs on another host in what libvirt made of :meth:`xml`: paths, say."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:  # noqa: ARG002
        """Arguments for QEMU, where libvirt has no words for it.

        Libvirt gives out the places on the PCI bus without knowing of these: a PCI device
        needs an ``addr`` of its own here, or :meth:`xml`.
        """
        return ()

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's names of what it consists of."""
        return (self.qemu_device,) if self.qemu_device else ()

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Modules that the guest's kernel has to load for it, if it has not got them built in."""
        return ()

    @property
    def kernel_words(self) -> tuple[str, ...]:
        """Words of the guest's kernel's command line, without which it does not use the device."""
        return ()

    @property
    def host_programs(self) -> tuple[str, ...]:
        """Those of :attr:`programs` that this one needs."""
        return self.programs

    @property
    def served_apart(self) -> bool:
        """Whether another process than QEMU serves it."""
        return bool(self.host_programs)

    def leave(self, context: DeviceContext) -> None:
        """Remove what :meth:`provide` has made in the run's folder."""

    def provide(self, context: DeviceContext) -> None:
        """Make what has to be there before the first QEMU starts: files that both hosts see."""

    def make_ready(self, context: DeviceContext, *, first: bool) -> None:
        """Make what one QEMU alone needs, before it starts; what its predecessor on that host had may go.

        ``first``: it is the one on which the guest boots.
        """

    def helpers(self, context: DeviceContext) -> Iterable[HelperProgram]:  # noqa: ARG002
        """Programs that serve it, started before each QEMU."""
        return ()

    def echoes(self, context: DeviceContext) -> Iterable[Path]:  # noqa: ARG002
        """Sockets at which the testbed sends back what the guest sends, in capitals."""
        return ()

    def demand(self, facts: DeviceFacts) -> None:
        """Raise :class:`harness.errors.InputError`, with what to do, if there can be no such device."""
        for qemu in facts.qemus:
            for name in self.qemu_devices:
                if not qemu.has_device(name):
                    raise InputError(
                        f"guest.devices: {self.device}: {qemu.name} has no device {name}",
                        hint="take a QEMU that was built with it, or leave the device out",
                    )
        if facts.remote and self.needs_lab:
            raise InputError(f"guest.devices: {self.device}: it needs a lab, and remote names two machines")
        if self.needs_pcie and "q35" not in facts.machine:
            raise InputError(
                f"guest.devices: {self.device}: the machine type {facts.machine} has no PCI Express",
                hint="guest.machine: q35",
            )
        for path, module in self.machine_files.items():
            if (why := facts.why_closed(path)) is not None:
                raise InputError(
                    f"guest.devices: {self.device}: {path} cannot be opened: {why}",
                    hint=f"sudo modprobe {module}, and be somebody who may open it; or leave the device out",
                )

    def boarding(self, guest: DeviceUser) -> None:
        """Have the guest use it before it is migrated for the first time.

        What fails here is no fault of a migration.
        """

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:  # noqa: ARG002
        """What is wrong with it once the guest runs on its new host, each in words: the run fails."""
        return ()


#: When a device is there that a script can plug in and out.
Plugged: TypeAlias = Literal["always", "at-boot", "later"]


def demand_slot(device: Device, plugged: Plugged, facts: DeviceFacts) -> None:
    """Raise :class:`harness.errors.InputError` for a machine of which libvirt plugs nothing into the bus."""
    if plugged != "always" and "q35" in facts.machine:
        raise InputError(
            f"guest.devices: {device.device}: plugged: {plugged}: on {facts.machine} nothing is plugged into "
            "the root bus",
            hint="guest.machine: pc",
        )


DEVICES: Final[Registry[Device]] = Registry(Device, key="device", noun="device")

AnyDevice: TypeAlias = Annotated[Device, OneOf(DEVICES)]
