# SPDX-License-Identifier: GPL-2.0-or-later
"""Modes and shapes of memory, as far as they need no guest."""

from __future__ import annotations

import ssl
import stat
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Annotated

import libvirt
import pytest
import yaml
from pydantic import ValidationError

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
from harness.scenario.load import Migration, Scenario, load_scenario
from harness.scenario.mode import LIBVIRTS_OWN, Exclusion, Mode, modes_of


@pytest.mark.parametrize(
    ("modes", "flag", "parameter"),
    [
        (Modes.of(Migration(multifd=3)), libvirt.VIR_MIGRATE_PARALLEL, {"parallel.connections": 3}),
        (Modes.of(Migration(xbzrle=True)), libvirt.VIR_MIGRATE_COMPRESSED, {"compression": "xbzrle"}),
        (Modes.of(Migration(auto_converge=True)), libvirt.VIR_MIGRATE_AUTO_CONVERGE, {}),
        (Modes.of(Migration(tls=True)), libvirt.VIR_MIGRATE_TLS, {}),
        (PLAIN, 0, {}),
    ],
    ids=["multifd", "xbzrle", "auto-converge", "tls", "plain"],
)
def test_what_libvirt_is_told(modes: Modes, flag: int, parameter: dict[str, object]) -> None:
    assert modes.flags() == flag
    assert modes.parameters() == parameter
    assert modes.direct == ()


def test_what_qemu_is_told_itself() -> None:
    assert Modes.of(Migration(zero_pages="legacy")).qemu_parameters() == {"zero-page-detection": "legacy"}
    assert PLAIN.qemu_parameters() == {}
    assert Modes.of(Migration(postcopy=True)).direct == ("postcopy",)
    assert Modes.of(Migration(postcopy=True)).flags() == 0


def test_past_libvirt_qemu_is_told_the_limit() -> None:
    both = Modes.of(Migration(postcopy=True, bandwidth=5), ignore_shared=True)
    assert both.direct == ("postcopy", "guest.shared")
    assert both.capabilities() == (*LIBVIRTS_OWN, "postcopy-ram", "x-ignore-shared")
    assert both.qemu_parameters() == {"max-bandwidth": 5}
    assert Modes.of(Migration(), ignore_shared=True).qemu_parameters() == {"max-bandwidth": NO_LIMIT}
    assert Modes.of(Migration(bandwidth=5)).qemu_parameters() == {}


class Further(Migration):
    """Modes that the package does not know, a row each."""

    zero_copy: Annotated[bool, Mode("zero-copy-send", flag="ZEROCOPY")] = False
    rounds: Annotated[int | None, Mode(parameter="AUTO_CONVERGE_INITIAL")] = None
    dirty_limit: Annotated[bool, Mode("dirty-limit", excludes=(Exclusion("migration.auto_converge"),))] = (
        False
    )
    level: Annotated[int | None, Mode(qemu_parameter="multifd-zstd-level")] = None


def test_a_mode_of_ones_own_takes_one_row() -> None:
    by_libvirt = Modes.of(Further(zero_copy=True, rounds=20, multifd=2))
    assert by_libvirt.flags() == libvirt.VIR_MIGRATE_ZEROCOPY | libvirt.VIR_MIGRATE_PARALLEL
    assert by_libvirt.parameters() == {"auto_converge.initial": 20, "parallel.connections": 2}
    assert by_libvirt.direct == ()
    assert by_libvirt.qemu_parameters() == {}
    past_libvirt = Modes.of(Further(dirty_limit=True, level=3, bandwidth=7))
    assert past_libvirt.flags() == 0
    assert past_libvirt.direct == ("dirty_limit",)
    assert "dirty-limit" in past_libvirt.capabilities()
    assert past_libvirt.qemu_parameters() == {"multifd-zstd-level": 3, "max-bandwidth": 7}
    assert Modes.of(Further()) == PLAIN


def test_past_libvirt_nothing_is_dropped() -> None:
    modes = Modes.of(Migration(postcopy=True, multifd=3, xbzrle=True, auto_converge=True))
    assert {"multifd", "xbzrle", "auto-converge", "postcopy-ram"} <= set(modes.capabilities())
    assert modes.qemu_parameters() == {"multifd-channels": 3, "max-bandwidth": NO_LIMIT}


def test_names_of_qemus_go_by_libvirt_where_it_has_words() -> None:
    how = Migration(
        capabilities={"multifd": True, "auto-converge": True, "xbzrle": False},
        parameters={"multifd-channels": 4, "avail-switchover-bandwidth": 5, "max-bandwidth": 6},
    )
    modes = Modes.of(how)
    assert modes.direct == ()
    assert modes.flags() == libvirt.VIR_MIGRATE_PARALLEL | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    assert modes.parameters() == {"parallel.connections": 4}
    assert modes.qemu_parameters() == {"avail-switchover-bandwidth": 5}
    assert modes.bandwidth == 6
    assert modes.capabilities() == ()


def test_what_libvirt_has_no_words_for_goes_past_it() -> None:
    modes = Modes.of(Migration(multifd=2, parameters={"multifd-compression": "zstd"}))
    assert modes.direct == ("parameters.multifd-compression",)
    assert modes.qemu_parameters() == {
        "multifd-channels": 2,
        "multifd-compression": "zstd",
        "max-bandwidth": NO_LIMIT,
    }
    assert Modes.of(Migration(capabilities={"dirty-limit": True})).direct == ("capabilities.dirty-limit",)
    silent = Modes.of(Migration(capabilities={"return-path": False}))
    assert silent.direct == ("capabilities.return-path",)
    assert "return-path" not in silent.capabilities()
    assert Modes.of(Migration(parameters={"multifd-compression": None})) == PLAIN


def test_each_move_has_settings_of_its_own() -> None:
    text = {
        "name": "x",
        "migration": {"multifd": 2, "parameters": {"multifd-channels": None, "xbzrle-cache-size": 5}},
        "moves": [{"migration": {"multifd": 0, "parameters": {"xbzrle-cache-size": None}}}, {}],
    }
    scenario = Scenario.model_validate(text)
    first, second = scenario.migrations
    assert (first.multifd, second.multifd) == (0, 2)
    assert Modes.of(first) == PLAIN
    assert Modes.of(second).qemu_parameters() == {"xbzrle-cache-size": 5}
    again = Scenario.model_validate(yaml.safe_load(scenario.to_yaml()))
    assert again.migrations == scenario.migrations


def test_what_a_row_excludes_is_refused() -> None:
    class Wider(Scenario):
        migration: Further = Further()

    Wider(name="x", migration=Further(dirty_limit=True))
    with pytest.raises(ValidationError) as caught:
        Wider(name="x", migration=Further(dirty_limit=True, auto_converge=True))
    (error,) = caught.value.errors()
    assert error["msg"] == "does not go together with migration.dirty_limit"
    assert error["ctx"]["path"] == ("migration", "auto_converge")


def test_the_rows_have_names_that_libvirt_has() -> None:
    rows = modes_of(Migration)
    own = {"multifd", "zero_pages", "xbzrle", "auto_converge", "tls", "mapped_ram", "direct_io"}
    assert set(rows) == own | {"postcopy", "postcopy_preempt"}
    for row in rows.values():
        assert row.flag is None or hasattr(libvirt, f"VIR_MIGRATE_{row.flag}")
        assert row.parameter is None or hasattr(libvirt, f"VIR_MIGRATE_PARAM_{row.parameter}")
        assert all(key.partition(".")[0] in Scenario.model_fields for key in (e.key for e in row.excludes))


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
            "guest: {shared: 128MiB, devices: [{device: pmem}]}",
            "guest.shared: does not go together with a device pmem",
        ),
        ("migration: {multifd: 2}\ntrace: pages", "trace: with multifd QEMU does not trace single pages"),
        ("migration: {zero_pages: some}", "migration.zero_pages: expected 'none', 'legacy' or 'multifd'"),
        ("script: [{at: start, do: [{action: reset}]}]", "walk: expected false"),
        ("migration: {capabilities: {Multi: true}}", "migration.capabilities.Multi"),
        ("migration: {capabilities: {multifd: 3}}", "migration.capabilities.multifd: expected true or false"),
        (
            "migration: {multifd: 2, capabilities: {multifd: false}}",
            "x.yaml:2:40: migration.capabilities.multifd: multifd switches it on",
        ),
        (
            "migration: {multifd: 2, parameters: {multifd-channels: 3}}",
            "migration.parameters.multifd-channels: multifd says it already",
        ),
        (
            "migration: {bandwidth: 1MiB/s, parameters: {max-bandwidth: 3}}",
            "migration.parameters.max-bandwidth: bandwidth says it already",
        ),
        ("migration: {capabilities: {events: false}}", "migration.capabilities.events: expected true"),
        (
            "migration: {parameters: {tls-creds: a}}",
            "tls-creds: it is set by the testbed itself: see migration.tls",
        ),
        ("migration: {tls: 3}", "migration.tls: expected false, true or 'psk', got 3"),
        (
            "migration: {multifd: 2}\nmoves: [{migration: {capabilities: {multifd: false}}}]",
            "x.yaml:3:37: moves[0].migration.capabilities.multifd: multifd switches it on",
        ),
        (
            "trace: pages\nmoves: [{migration: {multifd: 2}}]",
            "x.yaml:2:1: trace: with multifd QEMU does not trace single pages",
        ),
        (
            "moves: [{migration: {clear_bitmap_shift: 7}}]",
            "moves[0].migration.clear_bitmap_shift: expected in the scenario's migration",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: x\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    assert words in str(caught.value)
