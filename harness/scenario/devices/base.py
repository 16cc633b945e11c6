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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Protocol, TypeAlias
from uuid import UUID, uuid5

from harness.errors import InputError
from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Section


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

    def uuid(self, *, each_host: bool) -> UUID:
        """A UUID for a device: one for each host, or the same on both."""
        return uuid5(self.guest, self.host if each_host else self.first_host)


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


class ArrivedGuest(Protocol):
    """A guest that runs on its new host."""

    @property
    def context(self) -> DeviceContext:
        """The guest, and the host that it has arrived on."""

    def call(self, verb: str, *words: str | int) -> Mapping[str, object]:
        """Have the guest's agent do something; what it answers."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Have QEMU do something (QMP); what it answers."""


class Device(Section):
    """A device of the guest's, beside those that every guest has."""

    #: QEMU's name of it, which both QEMUs have to know; empty: nothing is asked of them.
    qemu_device: ClassVar[str] = ""
    #: Files of the machine's that QEMU has to open, each with the kernel module that makes it.
    machine_files: ClassVar[Mapping[str, str]] = MappingProxyType({})

    device: str
    """Which device."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        DEVICES.add(cls)

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

    def demand(self, facts: DeviceFacts) -> None:
        """Raise :class:`harness.errors.InputError`, with what to do, if there can be no such device."""
        for qemu in facts.qemus:
            if self.qemu_device and not qemu.has_device(self.qemu_device):
                raise InputError(
                    f"guest.devices: {self.device}: {qemu.name} has no device {self.qemu_device}",
                    hint="take a QEMU that was built with it, or leave the device out",
                )
        for path, module in self.machine_files.items():
            if (why := facts.why_closed(path)) is not None:
                raise InputError(
                    f"guest.devices: {self.device}: {path} cannot be opened: {why}",
                    hint=f"sudo modprobe {module}, and be somebody who may open it; or leave the device out",
                )

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:  # noqa: ARG002
        """What is wrong with it once the guest runs on its new host, each in words: the run fails."""
        return ()


DEVICES: Final[Registry[Device]] = Registry(Device, key="device", noun="device")

AnyDevice: TypeAlias = Annotated[Device, OneOf(DEVICES)]
