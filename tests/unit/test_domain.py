# SPDX-License-Identifier: GPL-2.0-or-later
"""The domain's XML: what QEMU must get, and what must survive a move to the other host."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path
from uuid import UUID

import pytest

from harness.errors import MachineryError
from harness.guest.devices import BalloonDevice, Interface
from harness.guest.domain import Boot, DomainSpec, FirmwareImage, destination_xml, domain_xml
from harness.hosts.interface import Nic, Sockets
from harness.hosts.netns import GUEST_MAC, nic_of

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
TAP = Nic(GUEST_MAC, "tap0")
RELAY = Nic(GUEST_MAC, None, (7001, 7002))


def make(**changes: object) -> DomainSpec:
    spec = DomainSpec(
        name="guest",
        uuid=UUID(int=7),
        qemu=Path("/q/qemu"),
        firmware=(Path("/fw/a"), Path("/fw/b")),
        boot=Boot(Path("/k/vmlinuz"), Path("/k/initrd"), "console=ttyS0"),
        memory=1 << 30,
        vcpus=2,
        machine="pc",
        accelerator="tcg",
        balloon=BalloonDevice("off"),
        sockets=Sockets.below(Path("/run/source")),
        nics=(Interface(TAP),),
    )
    return dataclasses.replace(spec, **changes)


def arguments(xml: str) -> list[str]:
    return [arg.attrib["value"] for arg in ET.fromstring(xml).iter(f"{QEMU}arg")]


def value(root: ET.Element, path: str, attribute: str | None = None) -> str | None:
    element = root.find(path)
    assert element is not None, path
    return element.text if attribute is None else element.get(attribute)


def test_ram_is_one_shared_file_of_the_asked_size() -> None:
    root = ET.fromstring(domain_xml(make(memory=1536 << 20)))
    assert (value(root, "memory"), value(root, "memory", "unit")) == (str(1536 << 20), "b")
    assert value(root, "memoryBacking/source", "type") == "file"
    assert value(root, "memoryBacking/access", "mode") == "shared"
    # <discard/> would make QEMU punch the file empty when it ends, before anybody has compared it.
    assert root.find("memoryBacking/discard") is None


def test_nothing_with_memory_of_its_own_or_a_bus_to_enumerate() -> None:
    root = ET.fromstring(domain_xml(make()))
    assert root.find("devices/video") is None
    assert root.find("devices/graphics") is None
    assert value(root, "devices/controller[@type='usb']", "model") == "none"


def test_serial_ports_connect_to_us() -> None:
    root = ET.fromstring(domain_xml(make()))
    paths = []
    for serial in root.findall("devices/serial"):
        assert value(serial, "source", "mode") == "connect"
        paths.append((value(serial, "target", "port"), value(serial, "source", "path")))
    assert paths == [("0", "/run/source/console.sock"), ("1", "/run/source/control.sock")]


@pytest.mark.parametrize(
    ("accelerator", "kind", "mode"), [("tcg", "qemu", "custom"), ("kvm", "kvm", "host-passthrough")]
)
def test_accelerator(accelerator: str, kind: str, mode: str) -> None:
    root = ET.fromstring(domain_xml(make(accelerator=accelerator)))
    assert root.get("type") == kind
    assert value(root, "cpu", "mode") == mode


def test_a_guest_that_ends_stays_ended() -> None:
    root = ET.fromstring(domain_xml(make()))
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        assert value(root, event) == "destroy"


def test_arm_off_leaves_the_balloon_alone() -> None:
    assert "-global" not in arguments(domain_xml(make(balloon=BalloonDevice("off"))))


def test_arm_hint_has_an_iothread() -> None:
    given = arguments(domain_xml(make(balloon=BalloonDevice("hint"))))
    assert "virtio-balloon-device.free-page-hint=on" in given
    assert "iothread,id=freepage-hint" in given
    assert "virtio-balloon-device.iothread=freepage-hint" in given


def test_arm_info_with_hold_and_record() -> None:
    balloon = BalloonDevice("info", ("request", "answer"), Path("/run/a,b/record"))
    given = arguments(domain_xml(make(balloon=balloon)))
    assert "virtio-balloon-device.free-page-info=on" in given
    assert "virtio-balloon-device.x-free-page-info-hold=request,answer" in given
    # -global takes the rest of its argument as it is: no comma is doubled.
    assert "migration.x-record=/run/a,b/record" in given


def test_firmware_and_monitor_and_extra_arguments_in_that_order() -> None:
    sockets = Sockets(Path("/c"), Path("/d"), Path("/x,y"))
    given = arguments(domain_xml(make(sockets=sockets, extra=("-trace", "x"))))
    assert given[:4] == ["-L", "/fw/a", "-L", "/fw/b"]
    assert "socket,id=freepage-monitor,path=/x,,y,server=on,wait=off" in given
    assert given[-2:] == ["-trace", "x"]


@pytest.mark.parametrize("text", ["a=\"<&>'b", "é → ü", "two  spaces"])
def test_what_is_special_in_xml_arrives_as_it_was(text: str) -> None:
    spec = make(boot=Boot(Path("/k/vm & linuz"), Path("/k/i<r>d"), text))
    root = ET.fromstring(domain_xml(spec))
    assert value(root, "os/cmdline") == text
    assert value(root, "os/kernel") == "/k/vm & linuz"
    assert value(root, "os/initrd") == "/k/i<r>d"


def test_what_xml_cannot_hold_is_an_error() -> None:
    with pytest.raises(MachineryError, match="cannot hold"):
        domain_xml(make(boot=Boot(Path("/k"), Path("/i"), "a\x07b")))


def test_tap_is_ours_and_without_vhost() -> None:
    root = ET.fromstring(domain_xml(make()))
    interface = root.find("devices/interface")
    assert interface is not None
    assert interface.get("type") == "ethernet"
    assert interface.find("target").attrib == {"dev": "tap0", "managed": "no"}  # type: ignore[union-attr]
    assert value(interface, "driver", "name") == "qemu"
    assert value(interface, "rom", "enabled") == "no"


def test_vhost_is_said() -> None:
    root = ET.fromstring(domain_xml(make(nics=(Interface(TAP, vhost=True),))))
    interface = root.find("devices/interface")
    assert interface is not None
    assert value(interface, "driver", "name") == "vhost"


def test_relay_by_datagrams_on_the_loopback() -> None:
    root = ET.fromstring(domain_xml(make(nics=(Interface(RELAY),))))
    assert value(root, "devices/interface", "type") == "udp"
    source = root.find("devices/interface/source")
    assert source is not None
    assert (source.get("address"), source.get("port")) == ("127.0.0.1", "7001")
    assert value(source, "local", "port") == "7002"


def test_each_of_several_nics_is_attached_by_its_address() -> None:
    def both(taps: str) -> tuple[Interface, Interface]:
        first, second = (nic_of(1, tap=True, segment=number) for number in (0, 1))
        return (
            Interface(dataclasses.replace(first, tap=f"{taps}0"), queues=2, alias="ua-net0"),
            Interface(dataclasses.replace(second, tap=f"{taps}1"), model="e1000e", alias="ua-net1"),
        )

    running = ET.fromstring(domain_xml(make(nics=both("here"))))
    devices = running.find("devices")
    assert devices is not None
    found = devices.findall("interface")
    assert [value(one, "alias", "name") for one in found] == ["ua-net0", "ua-net1"]
    assert [value(one, "model", "type") for one in found] == ["virtio", "e1000e"]
    # The order of what libvirt says is its own affair.
    devices.remove(found[0])
    devices.append(found[0])
    moved = ET.fromstring(destination_xml(ET.tostring(running, encoding="unicode"), make(nics=both("there"))))
    taps = [(value(one, "model", "type"), value(one, "target", "dev")) for one in moved.iter("interface")]
    assert taps == [("e1000e", "there1"), ("virtio", "there0")]


def as_libvirt_says(xml: str) -> str:
    """The XML with what libvirt adds for a running guest: canonical machine, addresses, a console."""
    root = ET.fromstring(xml)
    root.find("os/type").set("machine", "pc-i440fx-10.0")  # type: ignore[union-attr]
    devices = root.find("devices")
    assert devices is not None
    for number, device in enumerate((devices.find("interface"), devices.find("memballoon"))):
        assert device is not None
        ET.SubElement(device, "address", {"type": "pci", "slot": f"0x{number + 2:02x}"})
    console = ET.SubElement(devices, "console", {"type": "unix"})
    ET.SubElement(console, "source", {"mode": "connect", "path": "/run/source/console.sock"})
    ET.SubElement(console, "target", {"type": "serial", "port": "0"})
    return ET.tostring(root, encoding="unicode")


@pytest.mark.parametrize(("there", "kind"), [(TAP, "ethernet"), (RELAY, "udp")])
def test_the_destination_gets_its_own_paths_and_the_same_guest(there: Nic, kind: str) -> None:
    info = BalloonDevice("info", ("request",), Path("/run/source/record"))
    running = as_libvirt_says(domain_xml(make(balloon=info)))
    moved = make(
        qemu=Path("/other/qemu"),
        sockets=Sockets.below(Path("/run/destination")),
        balloon=dataclasses.replace(info, record=Path("/run/destination/record")),
        nics=(Interface(there),),
    )
    text = destination_xml(running, moved)
    assert "/run/source" not in text
    root = ET.fromstring(text)
    assert value(root, "os/type", "machine") == "pc-i440fx-10.0"
    assert value(root, "devices/emulator") == "/other/qemu"
    assert value(root, "devices/interface", "type") == kind
    assert value(root, "devices/interface/address", "slot") == "0x02"
    assert value(root, "devices/memballoon/address", "slot") == "0x03"
    assert value(root, "devices/console/source", "path") == "/run/destination/console.sock"
    assert arguments(text) == arguments(domain_xml(moved))
    assert len(root.findall(f"{QEMU}commandline")) == 1


def test_xml_without_devices_is_an_error_and_no_crash() -> None:
    with pytest.raises(MachineryError, match="no devices"):
        destination_xml("<domain/>", make())


def test_a_cpu_goes_to_qemu_as_it_is_written() -> None:
    words = arguments(domain_xml(make(cpu="EPYC,+svm,-xsave")))
    assert words[words.index("-cpu") + 1] == "EPYC,+svm,-xsave"
    assert "-cpu" not in arguments(domain_xml(make()))
    # Of this mode libvirt checks no feature; of a model it would, against what QEMU was not told.
    assert value(ET.fromstring(domain_xml(make(cpu="EPYC"))), "cpu", "mode") == "maximum"
    moved = destination_xml(domain_xml(make(cpu="EPYC")), make(cpu="EPYC", qemu=Path("/other")))
    assert arguments(moved).count("-cpu") == 1


def test_a_topology_has_room_for_more_vcpus_than_there_are() -> None:
    root = ET.fromstring(domain_xml(make(vcpus=2, topology=(2, 1, 2, 2))))
    assert (value(root, "vcpu"), value(root, "vcpu", "current")) == ("8", "2")
    topology = root.find("cpu/topology")
    assert topology is not None
    assert topology.attrib == {"sockets": "2", "dies": "1", "cores": "2", "threads": "2"}
    assert value(ET.fromstring(domain_xml(make(vcpus=2))), "vcpu", "current") is None
    # Those to come have a node as well.
    from harness.guest.memory_shape import MemoryShape

    root = ET.fromstring(domain_xml(make(vcpus=2, topology=(1, 1, 4, 1), shape=MemoryShape(nodes=2))))
    assert [cell.get("cpus") for cell in root.iter("cell")] == ["0,2", "1,3"]


def test_firmware_is_an_image_or_two_flashes() -> None:
    root = ET.fromstring(domain_xml(make(firmware_image=FirmwareImage(Path("/f/bios")))))
    assert (value(root, "os/loader"), value(root, "os/loader", "type")) == ("/f/bios", "rom")
    assert root.find("os/nvram") is None
    flash = FirmwareImage(Path("/f/code"), Path("/f/vars"), smm=True)
    root = ET.fromstring(domain_xml(make(firmware_image=flash)))
    loader = root.find("os/loader")
    assert loader is not None
    assert loader.attrib == {"readonly": "yes", "type": "pflash", "secure": "yes"}
    assert value(root, "os/nvram", "template") == "/f/vars"
    assert value(root, "features/smm", "state") == "on"
    assert ET.fromstring(domain_xml(make())).find("os/loader") is None


def test_variables_of_qemu_s_go_to_both_sides() -> None:
    source = domain_xml(make(environment={"GCOV_PREFIX": "/run/counters"}))
    there = destination_xml(source, make(environment={"GCOV_PREFIX": "/elsewhere"}))
    for xml, where in ((source, "/run/counters"), (there, "/elsewhere")):
        [variable] = ET.fromstring(xml).iter(f"{QEMU}env")
        assert variable.attrib == {"name": "GCOV_PREFIX", "value": where}
