# SPDX-License-Identifier: GPL-2.0-or-later
"""Modes and shapes of memory, as far as they need no guest."""

from __future__ import annotations

import ssl
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt
import pytest

from harness.errors import InputError
from harness.guest.devices import SharedMemory
from harness.guest.memory_shape import (
    MIB,
    MemoryShape,
    add_backing,
    add_maximum,
    add_nodes,
    dimm_xml,
)
from harness.hosts.certificates import write_certificates
from harness.migration.modes import NO_LIMIT, PLAIN, Modes
from harness.scenario.load import load_scenario


@pytest.mark.parametrize(
    ("modes", "flag", "parameter"),
    [
        (Modes(multifd=3), libvirt.VIR_MIGRATE_PARALLEL, {"parallel.connections": 3}),
        (Modes(xbzrle=True), libvirt.VIR_MIGRATE_COMPRESSED, {"compression": "xbzrle"}),
        (Modes(auto_converge=True), libvirt.VIR_MIGRATE_AUTO_CONVERGE, {}),
        (Modes(tls=True), libvirt.VIR_MIGRATE_TLS, {}),
        (PLAIN, 0, {}),
    ],
    ids=["multifd", "xbzrle", "auto-converge", "tls", "plain"],
)
def test_what_libvirt_is_told(modes: Modes, flag: int, parameter: dict[str, object]) -> None:
    assert modes.flags() == flag
    assert modes.parameters() == parameter
    assert modes.direct == ()


def test_what_qemu_is_told_itself() -> None:
    assert Modes(zero_pages="legacy").qemu_parameters() == {"zero-page-detection": "legacy"}
    assert PLAIN.qemu_parameters() == {}
    assert Modes(postcopy=True).direct == ("postcopy-ram",)
    assert Modes(postcopy=True).flags() == 0


def test_past_libvirt_qemu_is_told_the_limit() -> None:
    both = Modes(postcopy=True, ignore_shared=True, bandwidth=5)
    assert both.direct == ("postcopy-ram", "x-ignore-shared")
    assert both.qemu_parameters() == {"max-bandwidth": 5}
    assert Modes(ignore_shared=True).qemu_parameters() == {"max-bandwidth": NO_LIMIT}
    assert Modes(bandwidth=5).qemu_parameters() == {}


@pytest.mark.parametrize(("memory", "nodes"), [(256, 1), (256, 2), (256, 3), (257, 4)])
def test_nodes_share_all_memory(memory: int, nodes: int) -> None:
    sizes = MemoryShape(nodes).sizes(memory * MIB)
    assert sum(sizes) == memory * MIB
    assert len(sizes) == nodes
    assert all(size % MIB == 0 and size > 0 for size in sizes)


def test_every_cpu_is_in_one_node() -> None:
    cpu = ET.Element("cpu")
    add_nodes(cpu, MemoryShape(nodes=3), 256 * MIB, 5)
    cells = cpu.findall("numa/cell")
    assert [cell.get("cpus") for cell in cells] == ["0,3", "1,4", "2"]
    assert sum(int(cell.get("memory", "0")) for cell in cells) == 256 * 1024


def test_one_block_needs_no_nodes() -> None:
    cpu, root = ET.Element("cpu"), ET.Element("domain")
    add_nodes(cpu, MemoryShape(), 256 * MIB, 2)
    add_maximum(root, MemoryShape(), 256 * MIB)
    assert not list(cpu)
    assert not list(root)


def test_a_dimm_has_room_and_a_node() -> None:
    shape, root, cpu = MemoryShape(dimm=128 * MIB), ET.Element("domain"), ET.Element("cpu")
    add_maximum(root, shape, 256 * MIB)
    add_nodes(cpu, shape, 256 * MIB, 1)
    assert root.findtext("maxMemory") == str(384 * MIB)
    assert len(cpu.findall("numa/cell")) == 1
    device = ET.fromstring(dimm_xml(shape))
    assert device.findtext("target/size") == str(128 * MIB)


def test_the_hole_is_qemus_business() -> None:
    arguments = list(MemoryShape(below_4g=192 * MIB).arguments())
    assert arguments == ["-machine", f"max-ram-below-4g={192 * MIB}"]
    assert not list(MemoryShape().arguments())


@pytest.mark.parametrize("huge", [False, True])
def test_backing(huge: bool) -> None:
    root = ET.Element("domain")
    add_backing(root, MemoryShape(hugepages=huge), "file")
    (backing,) = root
    source = backing.find("source")
    assert source is not None
    # libvirt refuses huge pages on demand.
    assert source.get("type") == ("memfd" if huge else "file")
    assert (backing.find("allocation") is None) == (backing.find("hugepages") is not None) == huge


def test_shared_memory_has_a_name_and_all_else_has_none() -> None:
    shape = MemoryShape(shared=SharedMemory(Path("/x,y/shared"), 128 * MIB))
    root, cpu = ET.Element("domain"), ET.Element("cpu")
    add_maximum(root, shape, 256 * MIB)
    add_nodes(cpu, shape, 256 * MIB, 1)
    add_backing(root, shape, "file")
    assert root.findtext("maxMemory") == str(384 * MIB)
    assert len(cpu.findall("numa/cell")) == 1
    source = root.find("memoryBacking/source")
    assert source is not None
    assert source.get("type") == "memfd"
    assert list(shape.arguments()) == [
        *("-object", f"memory-backend-file,id=shared,mem-path=/x,,y/shared,size={128 * MIB},share=on"),
        *("-device", "pc-dimm,id=shared-dimm,memdev=shared"),
    ]


def test_certificates_are_for_their_hosts(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    write_certificates(folders, ["10.77.1.1", "10.77.1.2"])
    for folder, address in zip(folders, ["10.77.1.1", "10.77.1.2"], strict=True):
        assert stat.S_IMODE((folder / "server-key.pem").stat().st_mode) == 0o600
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
        context.load_verify_locations(folder / "ca-cert.pem")
        assert address in str(ssl._ssl._test_decode_cert(str(folder / "server-cert.pem")))  # type: ignore[attr-defined]
    assert (folders[0] / "server-key.pem").read_bytes() != (folders[1] / "server-key.pem").read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("guest: {nodes: 2}", "guest.nodes: expected at least as many vcpus as nodes"),
        ("guest: {dimm: 100MiB}", "guest.dimm: expected whole 128MiB"),
        ("guest: {shared: 100MiB}", "guest.shared: expected whole 128MiB"),
        ("guest: {shared: 128MiB, dimm: 128MiB}", "guest.shared: does not go together with guest.dimm"),
        (
            "guest: {shared: 128MiB}\nmigration: {tls: true}",
            "guest.shared: does not go together with migration.tls",
        ),
        ("migration: {zero_pages: some}", "migration.zero_pages: expected 'none', 'legacy' or 'multifd'"),
        ("script: [{at: start, do: [{action: reset}]}]", "walk: expected false"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: x\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    assert words in str(caught.value)
