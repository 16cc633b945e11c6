# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's libvirt domain.

A small PC: RAM in one shared file, two serial ports, a NIC, a balloon, and
nothing else (a display's RAM could not be compared, a USB controller only costs
boot time).  What libvirt has no words for goes by ``qemu:commandline``: the
balloon's own properties, a second QMP monitor, firmware folders.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias
from uuid import UUID

from harness.arch import GUEST, Architecture
from harness.errors import MachineryError
from harness.guest.devices import (
    BalloonDevice,
    Disk,
    DomainDevice,
    Interface,
    ScenarioDevice,
    SerialPorts,
    Vmcoreinfo,
)
from harness.guest.devices.base import option
from harness.guest.dirty_log import QEMUS_CHOICE, DirtyLog
from harness.guest.memory_shape import ONE_BLOCK, MemoryShape, add_backing, add_maximum, add_nodes
from harness.guest.xml_edits import edit
from harness.hosts.interface import Sockets
from harness.scenario.raw import XmlEdit

Accelerator: TypeAlias = Literal["kvm", "tcg"]

_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
#: What libvirt calls the levels of a topology.
TOPOLOGY: Final = ("sockets", "dies", "cores", "threads")
_MONITOR: Final = "freepage-monitor"

#: Not in XML 1.0, escaped or not; ElementTree would write them all the same.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Boot:
    """Direct kernel boot: past firmware and boot loader."""

    kernel: Path
    initrd: Path
    cmdline: str


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """Firmware: an image, or a flash and another one for its variables, which begin as a copy."""

    code: Path
    variables: Path | None = None
    #: The variables are guarded by system management mode.
    smm: bool = False

    def add_to(self, os: ET.Element) -> None:
        """What the domain's ``<os>`` says of it."""
        if self.variables is None:
            _text(os, "loader", str(self.code), type="rom")
            return
        secure = {"secure": "yes"} if self.smm else {}
        _text(os, "loader", str(self.code), readonly="yes", type="pflash", **secure)
        # Without a path: each host keeps the variables among its daemon's files.
        ET.SubElement(os, "nvram", {"template": str(self.variables)})


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """All that the domain's XML depends on, for one host."""

    name: str
    uuid: UUID
    qemu: Path
    firmware: tuple[Path, ...]
    #: None: from its disk, as a machine does.
    boot: Boot | None
    memory: int
    vcpus: int
    machine: str
    accelerator: Accelerator
    balloon: BalloonDevice
    sockets: Sockets
    #: Empty: the guest has no network.
    nics: tuple[Interface, ...] = ()
    #: The guest's only disk.
    disk: Disk | None = None
    #: Another one, from which a guest of the user's own image gets its agent.
    seed: Disk | None = None
    #: The guest restarts where it reboots; else that is its end.
    restarts: bool = False
    #: Its RAM: a file in the host's memory folder, or one without a name.
    ram: Literal["file", "memfd"] = "file"
    #: The host's security models that are to leave this guest alone: its QEMU and files are the run's own.
    unconfined: tuple[str, ...] = ()
    #: How it is cut up, and whether in huge pages.
    shape: MemoryShape = ONE_BLOCK
    #: How what it writes is logged.
    log: DirtyLog = QEMUS_CHOICE
    #: Model and features as QEMU's ``-cpu`` is told them; None: the board's own, or under KVM the host's.
    cpu: str | None = None
    #: Sockets, dies, cores and threads: their product is the most vCPUs that there can be.
    topology: tuple[int, int, int, int] | None = None
    #: Firmware in place of QEMU's own choice.
    firmware_image: FirmwareImage | None = None
    #: Whether the board takes a device by which the guest says where its kernel is.
    vmcoreinfo: bool = True
    #: Of what is added to the default CPU: what this guest goes without.
    cpu_without: tuple[str, ...] = ()
    #: More QEMU arguments, after those of the devices that every guest has.
    extra: tuple[str, ...] = ()
    #: Variables of QEMU's environment, beside those that the log needs.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Changes of the whole, which the scenario writes out.
    edits: tuple[XmlEdit, ...] = ()
    #: Its words for QEMU, after all others.
    words: tuple[str, ...] = ()
    #: What the scenario gives the guest beside those.
    added: tuple[ScenarioDevice, ...] = ()
    architecture: Architecture = GUEST

    @property
    def standard(self) -> tuple[DomainDevice, ...]:
        """The devices that every guest has, in the order in which libvirt and QEMU are told of them."""
        disk = tuple(one for one in (self.disk, self.seed) if one is not None)
        return (
            *((Vmcoreinfo(),) if self.vmcoreinfo else ()),
            SerialPorts(self.sockets, self.architecture.board.serial),
            *disk,
            *self.nics,
            self.balloon,
            *(() if self.shape.device is None else (self.shape.device,)),
        )

    @property
    def devices(self) -> tuple[DomainDevice, ...]:
        """All of them."""
        return (*self.standard, *self.added)

    def elements(self, section: str) -> Iterator[ET.Element]:
        """What the devices have in a section of the domain."""
        for device in self.devices:
            if device.section == section:
                yield from device.elements()


def domain_xml(spec: DomainSpec) -> str:
    """The domain to create on the host that ``spec`` was made for.

    Raises :class:`harness.guest.xml_edits.EditError` for an edit of the scenario's that finds nothing.
    """
    root = ET.Element("domain", {"type": "kvm" if spec.accelerator == "kvm" else "qemu"})
    _text(root, "name", spec.name)
    _text(root, "uuid", str(spec.uuid))
    add_maximum(root, spec.shape, spec.memory)
    _text(root, "memory", str(spec.memory), unit="b")
    most = spec.vcpus if spec.topology is None else math.prod(spec.topology)
    _text(root, "vcpu", str(most), **({} if most == spec.vcpus else {"current": str(spec.vcpus)}))
    add_backing(root, spec.shape, spec.ram)
    boot = ET.SubElement(root, "os")
    _text(boot, "type", "hvm", arch=spec.architecture.name, machine=spec.machine)
    if spec.firmware_image is not None:
        spec.firmware_image.add_to(boot)
    if spec.boot is not None:
        _text(boot, "kernel", str(spec.boot.kernel))
        _text(boot, "initrd", str(spec.boot.initrd))
        _text(boot, "cmdline", spec.boot.cmdline)
    features = ET.SubElement(root, "features")
    for name in spec.architecture.board.features:
        ET.SubElement(features, name)
    if spec.firmware_image is not None and spec.firmware_image.smm:
        ET.SubElement(features, "smm", {"state": "on"})
    features.extend(spec.elements("features"))
    spec.log.add_features(features)
    cpu = _cpu(root, spec)
    if spec.topology is not None:
        ET.SubElement(cpu, "topology", dict(zip(TOPOLOGY, map(str, spec.topology), strict=True)))
    add_nodes(cpu, spec.shape, spec.memory, most)
    ET.SubElement(root, "clock", {"offset": "utc"})
    # A guest that panics or reboots is lost at once, and not again and again until a deadline.
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(root, event, "restart" if event == "on_reboot" and spec.restarts else "destroy")
    _devices(root, spec)
    _security(root, spec.unconfined)
    _command_line(root, spec)
    _fewer_questions(root, spec.architecture.board.lacks)
    edit(root, spec.edits)
    return _serialise(root)


def destination_xml(source_xml: str, spec: DomainSpec) -> str:
    """The same domain for the other host: ``spec`` is made for that one.

    ``source_xml`` is what the source says of the running guest (migratable XML):
    machine version, addresses and ids stay, so that the guest sees no difference;
    paths, sockets, NIC attachment and QEMU's own arguments become the destination's.
    """
    root = ET.fromstring(source_xml)  # noqa: S314 - written by our own libvirt daemon
    devices = root.find("devices")
    emulator = root.find("devices/emulator")
    if devices is None or emulator is None:
        raise MachineryError("the source's domain XML has no devices", hint=source_xml[:2000])
    emulator.text = str(spec.qemu)
    for device in spec.devices:
        device.reattach(devices)
    _security(root, spec.unconfined)
    for old in root.findall(f"{{{_QEMU}}}commandline"):
        root.remove(old)
    _command_line(root, spec)
    if root.find(f"{{{_QEMU}}}capabilities") is None:
        _fewer_questions(root, spec.architecture.board.lacks)
    return _serialise(root)


def _serialise(root: ET.Element) -> str:
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    if bad := _NOT_XML.search(text):
        raise MachineryError(f"the domain's XML cannot hold the character {bad.group()!r}")
    return text


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _security(root: ET.Element, unconfined: tuple[str, ...]) -> None:
    for old in root.findall("seclabel"):
        root.remove(old)
    for model in unconfined:
        ET.SubElement(root, "seclabel", {"type": "none", "model": model})


def _cpu(root: ET.Element, spec: DomainSpec) -> ET.Element:
    if spec.accelerator == "kvm":
        # Both hosts are this machine, or the user's pair of the same kind: libvirt refuses any other.
        return ET.SubElement(root, "cpu", {"mode": "host-passthrough", "migratable": "on"})
    if spec.cpu is not None:
        # QEMU is told more (see _arguments), and of this mode libvirt checks no feature on either side.
        return ET.SubElement(root, "cpu", {"mode": "maximum"})
    # check: TCG's additions to the model are not to be compared with the host's CPU.
    cpu = ET.SubElement(root, "cpu", {"mode": "custom", "match": "exact", "check": "none"})
    _text(cpu, "model", spec.architecture.board.cpu, fallback="forbid")
    for name in spec.architecture.board.cpu_features:
        if name in spec.cpu_without:
            continue
        ET.SubElement(cpu, "feature", {"policy": "require", "name": name})
    return cpu


def _devices(root: ET.Element, spec: DomainSpec) -> None:
    devices = ET.SubElement(root, "devices")
    _text(devices, "emulator", str(spec.qemu))
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    devices.extend(spec.elements("devices"))


def _fewer_questions(root: ET.Element, lacks: Iterable[str]) -> None:
    """Have libvirt ask for the guest's CPU features in words, not one by one.

    With this capability it asks QEMU some 1,400 questions whenever a guest starts,
    on either side: 0.2 s each time, a tenth of what an emulated guest needs to boot.
    """
    capabilities = ET.SubElement(root, f"{{{_QEMU}}}capabilities")
    for name in ("cpu-unavailable-features", *lacks):
        ET.SubElement(capabilities, f"{{{_QEMU}}}del", {"capability": name})


def _command_line(root: ET.Element, spec: DomainSpec) -> None:
    line = ET.SubElement(root, f"{{{_QEMU}}}commandline")
    for argument in _arguments(spec):
        ET.SubElement(line, f"{{{_QEMU}}}arg", {"value": argument})
    for name, value in {**spec.log.environment(), **spec.environment}.items():
        ET.SubElement(line, f"{{{_QEMU}}}env", {"name": name, "value": value})


def _arguments(spec: DomainSpec) -> Iterator[str]:
    for folder in spec.firmware:
        yield from ("-L", str(folder))
    path = option(spec.sockets.monitor)
    yield from ("-chardev", f"socket,id={_MONITOR},path={path},server=on,wait=off")
    yield from ("-mon", f"chardev={_MONITOR},mode=control")
    if spec.cpu is not None:
        # The last one counts.  Libvirt knows neither every model nor every word of it.
        yield from ("-cpu", spec.cpu)
    yield from spec.shape.arguments()
    for device in spec.standard:
        yield from device.arguments()
    yield from spec.log.arguments()
    yield from spec.extra
    for device in spec.added:
        yield from device.arguments()
    yield from spec.words


ET.register_namespace("qemu", _QEMU)
