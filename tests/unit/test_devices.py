# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's devices as a plug point: a class of this file is all that a device of a scenario takes."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, cast
from uuid import UUID

import pytest

from harness.errors import GuestRefused, InputError, MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.guest.devices import ScenarioDevice
from harness.guest.domain import destination_xml, domain_xml
from harness.hosts.interface import Host, Nic
from harness.hosts.netns import nic_of
from harness.migration.qmp import Monitor
from harness.nested import commands
from harness.plan.device_facts import (
    PlannedFacts,
    ThisQemu,
    demand_devices,
    demand_modules,
    device_facts,
)
from harness.plan.here import LabMachines
from harness.plan.plan import Tools
from harness.run.arrival import board_devices, look_at_devices
from harness.scenario.devices import DEVICES, ArrivedGuest, Device, DeviceContext, DeviceFacts, DeviceUser
from harness.scenario.devices.base import NicLink
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.devices.generation_id import GenerationId
from harness.scenario.devices.input import events_for
from harness.scenario.devices.nic import ListedNic
from harness.scenario.load import load_scenario, scenario_schema
from harness.toolchain import Kernel, QemuBinary
from tests.unit.test_domain import arguments, make

CONTEXT = DeviceContext("source", "source", UUID(int=7), "pc", "tcg")
THERE = dataclasses.replace(CONTEXT, host="destination")

with DEVICES.temporary():

    class Tablet(Device):
        """A tablet, for which libvirt has words."""

        device: Literal["tablet"] = "tablet"
        """Which device."""
        log: str = "none"
        """Where it writes, which differs on each host."""

        def xml(self, context: DeviceContext) -> ET.Element:
            element = ET.Element("input", {"type": "tablet"})
            ET.SubElement(element, "source", {"path": f"/{context.host}/{self.log}"})
            return element

        def reattach(self, element: ET.Element, context: DeviceContext) -> None:
            source = element.find("source")
            assert source is not None
            source.set("path", f"/{context.host}/{self.log}")

        def demand(self, facts: DeviceFacts) -> None:
            if facts.accelerator != "kvm":
                raise InputError("guest.devices: tablet: only under KVM", hint="add --nested")

    class Sensor(Device):
        """A sensor, of which only QEMU knows."""

        qemu_device = "test-sensor"

        device: Literal["sensor"] = "sensor"
        """Which device."""
        degrees: int
        """What it says."""

        def arguments(self, context: DeviceContext) -> tuple[str, ...]:
            return ("-device", f"test-sensor,degrees={self.degrees},on={context.machine}")

        @property
        def guest_modules(self) -> tuple[str, ...]:
            return ("test_sensor",)

        def boarding(self, guest: DeviceUser) -> None:
            guest.notes["before"] = guest.use("sensor", "read", self.degrees)

        def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
            said = guest.use("sensor", "read", self.degrees), guest.execute("query-sensor")
            if said != (guest.notes["before"], self.degrees):
                yield f"says {said} on the {guest.context.host}"


@pytest.fixture
def registered() -> Iterator[None]:
    with DEVICES.temporary():
        DEVICES.add(Tablet)
        DEVICES.add(Sensor)
        yield


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nguest:\n  devices:\n  - {device: tablet, log: x}\n  - {device: sensor, degrees: 21}\n"
    )
    return path


@pytest.mark.usefixtures("registered")
def test_a_scenario_has_them_and_replays(scenario_file: Path, tmp_path: Path) -> None:
    scenario = load_scenario(str(scenario_file))
    assert scenario.guest.devices == (Tablet(log="x"), Sensor(degrees=21))
    again = tmp_path / "again.yaml"
    again.write_text(scenario.to_yaml())
    assert load_scenario(str(again)) == scenario


@pytest.mark.usefixtures("registered")
def test_the_schema_describes_them() -> None:
    definitions = cast("dict[str, dict[str, object]]", scenario_schema()["$defs"])
    properties = cast("dict[str, dict[str, object]]", definitions["Sensor"]["properties"])
    assert properties["degrees"]["description"] == "What it says."


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{device: tablett}]", r"guest\.devices\[0\]\.device.*'tablet'"),
        ("[{device: sensor}]", r"guest\.devices\[0\]\.degrees: missing"),
        ("[{device: tablet, lug: x}]", r"guest\.devices\[0\]\.lug: unknown key.*log"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nguest:\n  devices: {text}\n")
    with pytest.raises(InputError, match=f"s.yaml:3:[0-9]+: {message}"):
        load_scenario(str(path))


def test_without_a_class_there_is_no_such_device(scenario_file: Path) -> None:
    with pytest.raises(InputError, match="'generation-id'"):
        load_scenario(str(scenario_file))


def added(context: DeviceContext) -> tuple[ScenarioDevice, ...]:
    devices = (Tablet(log="x"), Sensor(degrees=21))
    return tuple(ScenarioDevice(device, context, number) for number, device in enumerate(devices))


def test_their_domain_on_the_source() -> None:
    text = domain_xml(make(added=added(CONTEXT), extra=("-trace", "x")))
    root = ET.fromstring(text)
    assert root.find("devices/input/source").attrib == {"path": "/source/x"}  # type: ignore[union-attr]
    assert root.find("devices/input/alias").attrib == {"name": "ua-freepage-0"}  # type: ignore[union-attr]
    assert arguments(text)[-4:] == ["-trace", "x", "-device", "test-sensor,degrees=21,on=pc"]


def test_their_domain_on_the_destination() -> None:
    running = domain_xml(make(added=added(CONTEXT)))
    root = ET.fromstring(running)
    # What the source's libvirt has added stays; another device of that kind is nobody's of ours.
    ET.SubElement(root.find("devices/input"), "address", {"slot": "0x07"})  # type: ignore[arg-type]
    ET.SubElement(root.find("devices"), "input", {"type": "mouse"})  # type: ignore[arg-type]
    text = destination_xml(ET.tostring(root, encoding="unicode"), make(added=added(THERE)))
    tablet, mouse = ET.fromstring(text).findall("devices/input")
    assert tablet.find("source").attrib == {"path": "/destination/x"}  # type: ignore[union-attr]
    assert tablet.find("address").attrib == {"slot": "0x07"}  # type: ignore[union-attr]
    assert not list(mouse)
    assert arguments(text)[-2:] == ["-device", "test-sensor,degrees=21,on=pc"]


@dataclasses.dataclass
class FakeQemu:
    devices: frozenset[str]
    name: str = "the QEMU /q"

    def has_device(self, name: str) -> bool:
        return name in self.devices


def facts(*devices: str, accelerator: str = "tcg") -> PlannedFacts:
    return PlannedFacts([cast("ThisQemu", FakeQemu(frozenset(devices)))], accelerator, remote=False)


def test_what_they_demand() -> None:
    Sensor(degrees=1).demand(facts("test-sensor"))
    with pytest.raises(InputError, match="sensor: the QEMU /q has no device test-sensor"):
        Sensor(degrees=1).demand(facts("vmgenid"))
    Tablet().demand(facts(accelerator="kvm"))
    with pytest.raises(InputError, match="only under KVM"):
        Tablet().demand(facts())


def test_an_image_that_two_storage_daemons_have_open_has_no_tables() -> None:
    here = facts("vhost-user-blk-pci")
    ListedDisk(bus="vhost-user-blk").demand(here)
    with pytest.raises(InputError, match="qcow2 does not go together with vhost-user-blk"):
        ListedDisk(bus="vhost-user-blk", format="qcow2").demand(here)


def test_a_qemu_is_asked_what_it_has(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'Misc devices:'\necho 'name \"vmgenid\", desc \"an id\"'\n")
    program.chmod(0o755)
    qemu = QemuBinary(program, (), "10.0", "0", "patched", True, True)
    here = device_facts([qemu, qemu], "tcg", "pc", remote=False)
    demand_devices([GenerationId()], here)
    with pytest.raises(InputError, match=rf"sensor: the QEMU {program} \(10.0\) has no device"):
        demand_devices([Sensor(degrees=1)], here)
    # One on another machine cannot be asked from here.
    demand_devices([Sensor(degrees=1)], device_facts([qemu, qemu], "tcg", "pc", remote=True))


def nowhere(machine: str = "pc", *, remote: bool = False) -> PlannedFacts:
    return PlannedFacts([], "tcg", remote, machine)


def test_a_file_of_the_machine_is_tried(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.touch()
    with DEVICES.temporary():

        class Socket(Device):
            """A device that the kernel serves."""

            machine_files = {str(there): "there", str(gone): "vhost_test"}  # noqa: RUF012

            device: Literal["socket"] = "socket"
            """Which device."""

    with pytest.raises(InputError, match=rf"socket: {gone} cannot be opened: No such file") as caught:
        demand_devices([Socket()], nowhere())
    assert "modprobe vhost_test" in str(caught.value.hint)
    demand_devices([Socket()], nowhere(remote=True))
    gone.touch()
    demand_devices([Socket()], nowhere())


@pytest.mark.parametrize(
    ("text", "machine", "remote", "message"),
    [
        ("[{device: root-port}]", "pc", False, "root-port: the machine type pc has no PCI Express"),
        ("[{device: scsi}, {device: scsi}]", "pc", False, "scsi: a guest can have one of it"),
        ("[{device: virtiofs}]", "pc", True, "virtiofs: it needs a lab"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, machine: str, remote: bool, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nguest: {{devices: {text}}}\n")
    devices = load_scenario(str(path)).guest.devices
    with pytest.raises(InputError, match=message):
        demand_devices(devices, nowhere(machine, remote=remote))


def test_what_the_guests_kernel_lacks(tmp_path: Path) -> None:
    (tmp_path / "test-sensor.ko").touch()
    with_it = Kernel(tmp_path / "vmlinuz", "6.1", tmp_path, None, "0")
    demand_modules([Sensor(degrees=1)], with_it)
    with pytest.raises(InputError, match=r"sensor: the guest's kernel 6\.1 has no module test_sensor"):
        demand_modules([Sensor(degrees=1)], dataclasses.replace(with_it, modules_dir=None))


def test_each_has_a_place_of_its_own() -> None:
    for machine in ("pc", "q35"):
        contexts = [dataclasses.replace(CONTEXT, machine=machine, number=number) for number in range(16)]
        places = [context.place for context in contexts]
        assert len(set(places)) == 16
        assert {place.split(",")[0] for place in places} == {f"bus={'pci' if machine == 'pc' else 'pcie'}.0"}
        # A q35's own devices begin at 0x1a, and nowhere is a slot above 0x1f.
        assert max(context.slot for context in contexts) < (0x20 if machine == "pc" else 0x1A)


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_those_that_ship_differ_on_the_hosts_only_in_their_sockets(name: str, tmp_path: Path) -> None:
    with DEVICES.temporary():
        device = DEVICES[name]()
    here = dataclasses.replace(CONTEXT, folder=Path("/one"), shared=tmp_path, machine="q35")
    there = dataclasses.replace(here, host="destination", folder=Path("/two"))
    # Both hosts are on one kernel, which has each context id once.
    here_words, moved = (
        tuple(re.sub(r"guest-cid=\d+", "", word).replace("path=/two", "path=/one") for word in words)
        for words in (device.arguments(here), device.arguments(there))
    )
    assert here_words == moved
    sockets = {helper.socket for helper in device.helpers(dataclasses.replace(here, folder=tmp_path))}
    assert all(f"path={path}" in " ".join(device.arguments(here)) for path in device.echoes(here))
    assert all(path.parent == tmp_path for path in sockets)


class FakeControl:
    """Its sensor answers so many degrees; ``wrong`` and ``silent`` are what it says of it."""

    def __init__(self, degrees: int = 21, wrong: str = "", *, silent: bool = False) -> None:
        self.value = {"wrong": wrong, "silent": silent, "did": "read it", "value": f"{degrees:02x}"}

    def call(self, verb: str, *words: object, deadline: object) -> Mapping[str, object]:
        assert (verb, words, deadline is not None) == ("device", ("sensor", "read", 21), True)
        return self.value


class FakeMonitor:
    def __init__(self, degrees: int) -> None:
        self.degrees = degrees

    def execute(self, command: str, arguments: object, *, seconds: float) -> object:
        assert (command, arguments, seconds > 0) == ("query-sensor", {}, True)
        return self.degrees


def on(context: DeviceContext) -> list[ScenarioDevice]:
    return [
        ScenarioDevice(device, context, number)
        for number, device in enumerate((Sensor(degrees=21), Tablet()))
    ]


def control(*words: object, **more: bool) -> GuestControl:
    return cast("GuestControl", FakeControl(*words, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("guest", "says", "found"),
    [
        (control(), 21, None),
        (control(), 20, ("device-wrong", "sensor: says ('15', 20) on the destination")),
        (control(20), 21, ("device-wrong", "sensor: says ('14', 21) on the destination")),
        (control(21, "it smokes"), 21, ("device-wrong", "sensor: it smokes")),
        (control(21, "no answer", silent=True), 21, ("device-silent", "sensor: no answer")),
    ],
)
def test_they_are_used_before_and_after(
    guest: GuestControl, says: int, found: tuple[str, str] | None
) -> None:
    events = EventStream()
    notes: dict[int, dict[str, str]] = {}
    board_devices(on(CONTEXT), control(), events, notes)
    looks = look_at_devices(on(THERE), guest, cast("Monitor", FakeMonitor(says)), events, notes)
    assert [look.device for look in looks] == ["sensor", "tablet"]
    assert (looks[0].did, looks[1].did) == (("read it",), ())
    assert (looks[0].answers, looks[1].answers) == (found is None, None)
    assert [(one.rule, one.text) for one in looks[0].findings] == ([found] if found else [])


def test_what_the_agent_can_no_longer_do_is_a_fault_of_the_device() -> None:
    class Refuses(FakeControl):
        def call(self, *_: object, **__: object) -> dict[str, object]:
            raise GuestRefused("the guest cannot device sensor: no network")

    guest = cast("GuestControl", Refuses())
    looks = look_at_devices(on(THERE), guest, cast("Monitor", FakeMonitor(21)), EventStream(), {0: {}})
    (finding,) = looks[0].findings
    assert (finding.rule, finding.text) == (
        "device-wrong",
        "sensor: the guest cannot device sensor: no network",
    )


def test_one_that_fails_before_the_guest_moves_is_no_fault_of_the_migration() -> None:
    with pytest.raises(MachineryError, match=r"guest\.devices: sensor: before it was migrated: it smokes"):
        board_devices(on(CONTEXT), control(21, "it smokes"), EventStream(), {})


@pytest.mark.parametrize(("wanted", "same"), [("kept", True), ("changed", False)])
def test_a_generation_id_by_its_short_key(wanted: str, same: bool) -> None:
    guest = load_scenario("idle", [f"guest.generation_id={wanted}"]).guest
    (device,) = guest.all_devices
    assert device == GenerationId(at_destination=wanted)
    assert (device.arguments(CONTEXT) == device.arguments(THERE)) == same
    assert load_scenario("idle").guest.all_devices == ()


@pytest.mark.parametrize("key", ["nics", "devices"])
def test_a_nic_is_the_guests_from_whichever_list(tmp_path: Path, key: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nguest:\n  {key}: [{{device: nic, backend: vhost-user}}]\n")
    assert load_scenario(str(path)).guest.nic.backend == "vhost-user"
    path.write_text(f"name: s\nguest:\n  {key}: [{{device: nic, queues: 3}}]\n")
    with pytest.raises(InputError, match=rf"3:\d+: guest.{key}\[0\].queues: expected at most as many"):
        load_scenario(str(path))


def test_a_nested_machine_has_files_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this one's kernel lacks, such as /dev/vhost-vsock, is no reason to refuse a run in that one."""
    path = "/nosuch/vhost-vsock"
    assert device_facts([], "tcg", "pc", remote=False).why_closed(path) == "No such file or directory"
    assert device_facts([], "tcg", "pc", remote=False, own_kernel=False).why_closed(path) is None
    asked: list[bool] = []
    monkeypatch.setattr(commands, "prepare", lambda *words: asked.append(words[-1].own_kernel))
    commands.prepare_here(load_scenario("idle"), Tools(), EventStream())
    assert asked == [False]
    assert LabMachines().own_kernel


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("nics: [{}, {queues: 2}]", r"nics\[1\].queues: expected at most as many"),
        ("nics: [{}, {backend: vhost-user}]", r"nics\[1\].backend: vhost-user is for the first"),
        ("image: debian, nics: [{}, {}]", r"guest.image: expected small, or a path"),
        ("nics: [{}, {}, {}, {}, {}]", r"guest.nics: expected at most 4"),
    ],
)
def test_what_several_nics_cannot_be(tmp_path: Path, rest: str, words: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nguest: {{{rest}}}\n")
    with pytest.raises(InputError, match=words):
        load_scenario(str(path))


class FakeNetwork:
    """A host at whose network somebody listens."""

    def __init__(self, announced: bool) -> None:
        self.nics = tuple(nic_of(1, tap=True, segment=number) for number in (0, 1))
        self._announced = announced

    def announced(self, nic: Nic, deadline: Deadline) -> bool:
        assert (nic, deadline is not None) == (self.nics[1], True)
        return self._announced


class FakeNicControl:
    """A guest with a NIC: whether it has a link, and what is sent back of what it sends."""

    def __init__(self, carrier: str) -> None:
        self.carrier = carrier
        self.asked: list[str] = []

    def call(self, verb: str, name: str, action: str, mac: str, *_: object, deadline: object) -> object:
        assert (verb, name, mac, deadline is not None) == ("device", "nic", "52:54:00:77:01:0a", True)
        self.asked.append(action)
        return {"wrong": "", "silent": False, "did": "", "value": self.carrier}


@pytest.mark.parametrize(
    ("up", "carrier", "announced", "wrong"),
    [
        (True, "01", True, None),
        (True, "00", True, "nic 1: on the destination it has no link"),
        (True, "01", False, "nic 1: the destination's QEMU has not announced it to its network (RARP)"),
        (False, "00", False, None),
        (False, "01", True, "nic 1: on the destination it has a link, and a script had taken it down"),
    ],
)
def test_a_second_nic_has_its_link_and_is_announced(
    up: bool, carrier: str, announced: bool, wrong: str | None
) -> None:
    # Where it listens there is no lab here: the loopback will do.
    link = NicLink(1, "52:54:00:77:01:0a", "127.0.0.2", 24, "127.0.0.1", up)
    nic = ScenarioDevice(ListedNic(), dataclasses.replace(THERE, link=link), 0)
    guest, network = FakeNicControl(carrier), cast("Host", FakeNetwork(announced))
    (look,) = look_at_devices(
        [nic], cast("GuestControl", guest), cast("Monitor", None), EventStream(), {}, network
    )
    assert [one.text for one in look.findings] == ([wrong] if wrong else [])
    assert guest.asked == (["carrier", "echo"] if up and carrier == "01" else ["carrier"])


def test_an_nvdimm_has_a_file_of_each_qemus_own(tmp_path: Path) -> None:
    with DEVICES.temporary():
        device = DEVICES["pmem"]()
    context = dataclasses.replace(CONTEXT, folder=Path("/qemu-1"), memory=tmp_path)
    element = device.xml(context)
    assert element is not None
    assert element.findtext("source/path") == str(tmp_path / "qemu-1-freepage0.pmem")
    later = dataclasses.replace(context, folder=Path("/qemu-3"))
    device.reattach(element, later)
    assert element.findtext("source/path") == str(tmp_path / "qemu-3-freepage0.pmem")
    # That of a QEMU which has gone from this host takes memory.
    (tmp_path / "qemu-1-freepage0.pmem").write_bytes(b"")
    device.make_ready(later, first=False)
    assert not list(tmp_path.iterdir())


def test_virtio_goes_through_an_iommu_but_for_the_balloon() -> None:
    with DEVICES.temporary():
        device = DEVICES["iommu"]()
    words = " ".join(device.arguments(CONTEXT))
    assert "virtio-net-pci.iommu_platform=on" in words
    assert "balloon" not in words
    assert device.kernel_words == ("intel_iommu=on",)


def test_a_tablet_points_to_another_place_each_time() -> None:
    """The guest drops a position that is the one before, so a second arrival would be met with silence."""
    first, second = (events_for("tablet", noticed) for noticed in (0, 3))
    assert first != second
    assert [one["data"]["axis"] for one in first] == ["x", "y"]
    assert all(0 <= one["data"]["value"] < 0x8000 for one in events_for("tablet", 123456))
