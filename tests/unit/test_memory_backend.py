# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's memory is made of: in the domain, as the oracle reads it, and what is not plugged in."""

from __future__ import annotations

import mmap
import os
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness.devicestate.sections import Section
from harness.devicestate.virtio_mem import plugged_pages
from harness.errors import InputError, MachineryError
from harness.guest.devices.dimm import VirtioMemory
from harness.guest.domain import domain_xml
from harness.guest.memory_shape import FileWithOffset, HostBacking, MemoryShape
from harness.hosts.lab_qemu import LARGE, LabQemu
from harness.memory.image import RamImage
from harness.memory.live_image import LiveImage
from harness.memory.record import Block
from harness.migration.memory_map import parse_map
from harness.migration.statistics import RamBlock, parse_ramblocks
from harness.plan.here import demand_huge_pages_of
from harness.scenario.model import Scenario
from harness.units import PAGE_SIZE
from harness.verdict.case import BlockState
from harness.verdict.judge import JudgeInput, judge_memory
from tests.unit.test_domain import arguments, make

MIB = 1 << 20
DEVICE = {"size": "256MiB", "plugged": "128MiB"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_backend": {"type": "memfd", "offset": "2MiB"}}, "expected only with type: file"),
        ({"memory_backend": {"offset": "2MiB", "page": "2MiB"}}, "and without an offset"),
        (
            {"memory_backend": {"offset": "2MiB"}, "nodes": 2, "vcpus": 2},
            "does not go together with guest.nodes",
        ),
        ({"memory_backend": {}, "shared": "128MiB"}, "does not go together with guest.shared"),
        ({"virtio_mem": DEVICE, "dimm": "128MiB"}, "does not go together with guest.dimm"),
        ({"virtio_mem": {"size": "100MiB", "plugged": "2MiB"}}, "expected whole 128MiB"),
        ({"virtio_mem": {"size": "128MiB", "plugged": "3MiB"}}, "expected whole blocks"),
        ({"virtio_mem": {"size": "128MiB", "plugged": "256MiB"}}, "at most size"),
        ({"virtio_mem": {"size": "128MiB", "block": "1MiB", "plugged": "1MiB"}}, "expected at least 2MiB"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Scenario.model_validate({"name": "a", "guest": changes})


def test_a_script_needs_the_device_that_it_resizes() -> None:
    script = [{"at": "active", "do": [{"action": "virtio-mem-resize", "plugged": "2MiB"}]}]
    with pytest.raises(ValidationError, match="expected one: the script resizes it"):
        Scenario.model_validate({"name": "a", "script": script})
    Scenario.model_validate({"name": "a", "guest": {"virtio_mem": DEVICE}, "script": script})


def test_what_is_in_no_file_is_needed_a_third_time() -> None:
    def guest(backend: dict[str, Any] | None) -> int:
        model = Scenario.model_validate({"name": "a", "guest": {"memory_backend": backend}})
        return model.guest.copied_memory

    assert [guest(None), guest({}), guest({"type": "ram"}), guest({"share": False})] == [
        0,
        0,
        1 << 30,
        1 << 30,
    ]


def backing(shape: MemoryShape) -> str:
    found = ET.fromstring(domain_xml(make(shape=shape))).find("memoryBacking")
    assert found is not None
    return "".join(ET.tostring(found, encoding="unicode").split()).replace('"', "'")


def test_the_backing_in_the_domain() -> None:
    assert backing(MemoryShape(backing=HostBacking("anonymous", share=False))) == (
        "<memoryBacking><sourcetype='anonymous'/><accessmode='private'/>"
        "<allocationmode='ondemand'/></memoryBacking>"
    )
    huge = backing(MemoryShape(backing=HostBacking("memfd", prealloc=True, page=2 * MIB)))
    assert "<hugepages><pagesize='2048'unit='KiB'/></hugepages><sourcetype='memfd'/>" in huge
    assert "<allocationmode='immediate'/>" in huge


def test_ram_that_begins_somewhere_in_a_file_is_qemus_alone() -> None:
    ram = FileWithOffset(Path("/m/a,b"), 1 << 30, 2 * MIB, share=True, prealloc=False)
    words = arguments(domain_xml(make(shape=MemoryShape(at_offset=ram))))
    told = words[words.index("-object") + 1]
    assert "mem-path=/m/a,,b,size=1073741824,offset=2097152,share=on,prealloc=off" in told
    assert "memory-backend=freepage-ram" in words


def test_virtio_mem_in_the_domain() -> None:
    shape = MemoryShape(device=VirtioMemory(256 * MIB, 2 * MIB, 128 * MIB))
    root = ET.fromstring(domain_xml(make(shape=shape)))
    assert root.findtext("maxMemory") == str((1 << 30) + 256 * MIB)
    target = root.find("devices/memory[@model='virtio-mem']/target")
    assert target is not None
    sizes = [child.text for child in target]
    assert sizes == [str(256 * MIB), "0", str(2 * MIB), str(128 * MIB)]
    # Libvirt plugs memory only into a guest with nodes.
    assert root.find("cpu/numa/cell") is not None


def test_an_image_begins_where_its_block_does(tmp_path: Path) -> None:
    file = tmp_path / "ram"
    with file.open("wb") as opened:
        opened.truncate(6 * PAGE_SIZE)
        opened.seek(3 * PAGE_SIZE)
        opened.write(b"\1" * PAGE_SIZE)
    with RamImage.open(file, 4 * PAGE_SIZE, "ram", 2 * PAGE_SIZE) as image:
        assert image.holes().tolist() == [True, False, True, True]
        assert image.page(1) == b"\1" * PAGE_SIZE
        assert image.again().page(1) == b"\1" * PAGE_SIZE
    with pytest.raises(MachineryError, match="expected a memory image of"):
        RamImage.open(file, 5 * PAGE_SIZE, "ram", 2 * PAGE_SIZE)


def address_of(memory: mmap.mmap) -> int:
    return int(np.frombuffer(memory, dtype=np.uint8).ctypes.data)


@pytest.mark.parametrize("private_file", [False, True])
def test_memory_of_a_process_is_read_and_kept(tmp_path: Path, private_file: bool) -> None:
    """This process stands in for a QEMU."""
    pages = 512
    if private_file:
        with (tmp_path / "pc.ram").open("wb") as opened:
            opened.truncate(pages * PAGE_SIZE)
        with (tmp_path / "pc.ram").open("r+b") as opened:
            memory = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE)
    else:
        memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[7 * PAGE_SIZE : 8 * PAGE_SIZE] = b"\7" * PAGE_SIZE
    image = LiveImage(os.getpid(), address_of(memory), pages * PAGE_SIZE, "pc.ram")
    again = image.again()
    assert np.flatnonzero(~image.holes()).tolist() == [7]
    assert image.page(7) == again.page(7) == b"\7" * PAGE_SIZE
    assert image.page(8) == bytes(PAGE_SIZE)
    image.keep()
    image.keep()
    memory[7 * PAGE_SIZE] = 9
    # One is a copy now, the other is not.
    assert (image.live, image.page(7)[0], again.page(7)[0]) == (False, 7, 9)
    assert np.flatnonzero(~image.holes()).tolist() == [7]
    assert image.again().page(7) == b"\7" * PAGE_SIZE
    for one in (image, again):
        one.close()
        one.close()


def test_a_file_of_which_qemu_has_a_copy_may_have_content(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"\5" * 4 * PAGE_SIZE)
    with (tmp_path / "old").open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE)
    with LiveImage(os.getpid(), address_of(memory), 4 * PAGE_SIZE, "pc.ram") as image:
        assert image.page(2) == b"\5" * PAGE_SIZE
        assert not image.holes().any()


def test_memory_that_is_not_there_is_an_error() -> None:
    memory = mmap.mmap(-1, 4 * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with pytest.raises(MachineryError, match="expected a memory image of"):
        LiveImage(os.getpid(), address_of(memory), 1 << 40, "pc.ram")
    with pytest.raises(MachineryError, match="cannot read a QEMU's memory"):
        LiveImage(1 << 22, 0, PAGE_SIZE, "pc.ram")


def test_a_lab_qemus_anonymous_ram_is_live_and_its_small_blocks_are_not(tmp_path: Path) -> None:
    memory = mmap.mmap(-1, LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ram = RamBlock("pc.ram", LARGE, LARGE, address_of(memory))
    rom = RamBlock("pc.rom", PAGE_SIZE, PAGE_SIZE, address_of(memory))
    found = LabQemu(os.getpid(), tmp_path).open([ram, rom])
    assert list(found) == ["pc.ram"]
    assert isinstance(found["pc.ram"], LiveImage)
    found["pc.ram"].close()


def test_a_block_without_a_name_is_none() -> None:
    text = (
        "              Block Name    PSize              Offset               Used              Total"
        "                HVA  RO\n"
        "            freepage-ram    4 KiB  0x0000000010000000 0x0000000000200000 0x0000000000200000"
        " 0x00007f0000000000  rw\n"
        "                            4 KiB  0x0000000000000000 0x0000000000200000 0x0000000000200000"
        " 0x00007f1000000000  rw\n"
    )
    assert [block.name for block in parse_ramblocks(text)] == ["freepage-ram"]


MAP = """\
FlatView #1
 AS "memory", root: system
 Root memory region: system
  0000000000000000-000000000fffffff (prio 0, ram): ram-node0 kvm
  0000000100000000-000000010fffffff (prio 0, ram): memdevice kvm
"""


def test_a_pci_devices_block_is_found_by_its_regions_name() -> None:
    names = ["0000:00:04.0/memdevice", "ram-node0"]
    assert parse_map(MAP, names) == {
        "ram-node0": [(0, 0, 1 << 28)],
        "0000:00:04.0/memdevice": [(1 << 32, 0, 1 << 28)],
    }
    # Two devices of one name: nobody says which is which.
    assert list(parse_map(MAP, [*names, "0000:00:05.0/memdevice"])) == ["ram-node0"]


def section(bits: int, *, plugged: int, size: int = 2 * MIB, name: str = "0000:00:04.0") -> Section:
    data = struct.pack(">QQQIQQ", 1 << 32, 8 * MIB, size, 0, plugged, bits)
    return Section(f"{name}/virtio-mem-device-early", 0, 1, data)


def test_which_blocks_are_plugged_in() -> None:
    found = plugged_pages([section(0b0101, plugged=4 * MIB)], "0000:00:04.0/mem", PAGE_SIZE)
    assert found is not None
    assert found.reshape(4, 512).all(axis=1).tolist() == [True, False, True, False]
    assert found.sum() == 2 * 512


@pytest.mark.parametrize(
    "one",
    [
        section(0b0101, plugged=6 * MIB),
        section(0b10101, plugged=6 * MIB),
        section(0b0101, plugged=4 * MIB, size=0),
        section(0b0101, plugged=4 * MIB, name="0000:00:05.0"),
        Section("0000:00:04.0/virtio-mem-device-early", 0, 1, b"short"),
    ],
)
def test_what_does_not_add_up_is_not_believed(one: Section) -> None:
    assert plugged_pages([one], "0000:00:04.0/mem", PAGE_SIZE) is None


@pytest.mark.parametrize(
    ("absent", "sent", "rules"),
    [
        (None, [True, False], ["neither-sent-nor-skipped"]),
        ([False, True], [True, False], []),
        ([False, True], [True, True], ["sent-unplugged"]),
        ([True, False], [False, False], ["neither-sent-nor-skipped"]),
    ],
)
def test_what_is_not_plugged_in_is_neither_sent_nor_skipped(
    absent: list[bool] | None, sent: list[bool], rules: list[str]
) -> None:
    zero = np.array([True, True])
    state = BlockState(
        block=Block("mem", 2, ()),
        differing=np.array([], dtype=np.int64),
        zero_on_source=zero,
        zero_on_destination=zero,
        sent=np.array(sent),
        absent=None if absent is None else np.array(absent),
    )
    memory = judge_memory(JudgeInput(arm="off", blocks=(state,)))
    assert [one.rule for one in memory.judgement.findings] == rules


def test_huge_pages_that_there_are_not(tmp_path: Path) -> None:
    guest = {"memory": "512MiB", "memory_backend": {"type": "memfd", "page": "2MiB"}}
    scenario = Scenario.model_validate({"name": "a", "guest": guest})
    with pytest.raises(InputError, match="no huge pages of that size; it has none"):
        demand_huge_pages_of(scenario, 2 * MIB, tmp_path)
    place = tmp_path / "hugepages-2048kB"
    place.mkdir()
    (place / "free_hugepages").write_text("511\n")
    with pytest.raises(InputError, match="512 free huge pages are needed, of which this machine has 511"):
        demand_huge_pages_of(scenario, 2 * MIB, tmp_path)
    (place / "free_hugepages").write_text("512\n")
    demand_huge_pages_of(scenario, 2 * MIB, tmp_path)
