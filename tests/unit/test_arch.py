# SPDX-License-Identifier: GPL-2.0-or-later
"""An architecture is one entry: one of this file is used wherever what it says is asked for."""

from __future__ import annotations

import dataclasses
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from harness import accel, arch
from harness.arch import Architecture, Board, KernelImage, PageTables, SystemCalls
from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.guest.domain import domain_xml
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.physical import GuestMemory
from harness.plan.architecture import demand_architecture
from harness.scenario.load import load_scenario
from harness.script.wire import waits_for_room
from harness.toolchain import signatures
from harness.toolchain.cache import Cache
from harness.toolchain.debian_archive import MIRROR_VARIABLE, DebianArchive
from harness.toolchain.kernel import kernel_release
from harness.toolchain.variant import OPTIONS, options
from tests.unit.small_archive import SmallArchive
from tests.unit.test_domain import make

#: Much as 64-bit ARM, so that what is no accident of x86-64 shows.
TOY = Architecture(
    name="toy64",
    debian="toy",
    multiarch="toy64-linux-gnu",
    page_size=4096,
    board=Board(
        noun="a toy",
        types=("virt",),
        versions=("virt-.+",),
        console="ttyAMA0",
        serial="system-serial",
        features=("acpi", "gic"),
        cpu="cortex-toy",
        cpu_features=(),
        cmdline="quick",
        early_console="console=ttyAMA0 earlycon",
        nesting_cpu="max",
        qemu_package="qemu-system-toy",
        firmware_packages=("toy-efi",),
        firmware_files=("toy.fd",),
    ),
    kernel=KernelImage(
        source="toy",
        target="Image",
        file="vmlinuz",
        noun="a toy's kernel",
        release=lambda head: head[4:].decode() if head[:4] == b"TOY!" else None,
    ),
    page_tables=PageTables(
        page_shift=12,
        index_bits=9,
        levels=(3,),
        largest_leaf=2,
        present=1,
        # An entry of an upper level is a table if its second bit is set.
        leaf_mask=0b10,
        leaf_value=0,
        address=0xFFFF_FFFF_F000,
        physical_bits=48,
        sign_extended=False,
        image=0xFFFF_8000_0000_0000,
        roots=("swapper_pg_dir",),
        zones=("DMA", "Normal"),
    ),
    system_calls=SystemCalls(sendmsg=211, poll=None, ppoll=73, futex=98, userfaultfd=282),
)


@pytest.fixture
def registered() -> Iterator[None]:
    arch.register(TOY)
    yield
    arch.forget(TOY.name)


@pytest.mark.usefixtures("registered")
def test_it_is_known_by_its_name() -> None:
    assert arch.named("toy64") is TOY
    assert arch.named("x86_64") is arch.X86_64


def test_one_that_is_not_known() -> None:
    with pytest.raises(InputError, match="guests on toy64 are not known here"):
        arch.named("toy64")


@pytest.mark.usefixtures("registered")
def test_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(machine: str) -> Architecture:
        words = ("Linux", "n", "r", "v", machine)
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(words))
        return arch.host()

    assert on("toy64") is TOY
    assert on("x86_64") is arch.X86_64
    assert on("vax") is arch.X86_64


def test_its_domain() -> None:
    root = ET.fromstring(domain_xml(make(architecture=TOY, machine="virt")))
    kind = root.find("os/type")
    assert kind is not None
    assert kind.attrib == {"arch": "toy64", "machine": "virt"}
    features = root.find("features")
    assert features is not None
    assert [feature.tag for feature in features] == ["acpi", "gic", "vmcoreinfo"]
    assert root.findtext("cpu/model") == "cortex-toy"
    assert root.find("cpu/feature") is None
    assert {target.get("type") for target in root.findall("devices/serial/target")} == {"system-serial"}


def test_the_guest_that_probes_an_accelerator() -> None:
    machine = accel.ProbeMachine(Path("/q"), "0", (), Path("/k"), TOY)
    assert machine.command("tcg")[-1] == "console=ttyAMA0 earlycon panic=-1"
    assert "cortex-toy" in machine.command("tcg")
    assert "host" in machine.command("kvm")


def test_what_is_built_for_it() -> None:
    assert TOY.qemu_binary == "qemu-system-toy64"
    assert options(TOY)[0] == "--target-list=toy64-softmmu"
    # KVM is for guests of the machine's own.
    assert options(arch.HOST) == OPTIONS
    assert options(TOY)[1:] == tuple(word for word in OPTIONS[1:] if word != "--enable-kvm")
    assert TOY.image_name("6.1") == "vmlinuz-6.1"


def test_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = SmallArchive(tmp_path / "archive", architecture=TOY.debian)
    archive.add("libtoy")
    archive.publish()
    monkeypatch.setattr(signatures, "KEYRINGS", (archive.keyring,))
    monkeypatch.setenv(MIRROR_VARIABLE, archive.mirror)
    cache = Cache(tmp_path / "cache", EventStream())
    assert DebianArchive(cache, "small", TOY).names("lib") == ["libtoy"]
    with pytest.raises(MachineryError, match="has no list main/binary-amd64/"):
        DebianArchive(cache, "small", arch.X86_64).names("lib")


def test_its_kernels(tmp_path: Path) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"TOY!6.1-toy")
    assert kernel_release(image, TOY) == "6.1-toy"
    with pytest.raises(InputError, match="is not an x86 kernel"):
        kernel_release(image, arch.X86_64)


def test_its_system_calls() -> None:
    assert waits_for_room("211 0x5 0x7 0x0", TOY.system_calls)
    assert waits_for_room("73 0x5 0x7 0x0", TOY.system_calls)
    # x86-64's sendmsg and poll are other calls there.
    assert not waits_for_room("46 0x5 0x7 0x0", TOY.system_calls)
    assert not waits_for_room("7 0x5 0x7 0x0", TOY.system_calls)
    assert waits_for_room("98 0x7f0000000000 0x89 0x0 0x0", TOY.system_calls)
    assert not waits_for_room("98 0x7f0000000000 0x89 0x0 0x7f0000001000", TOY.system_calls)


class Tables:
    """Physical memory, of 16 KiB unless it is said."""

    def __init__(self, words: dict[int, int], size: int = 1 << 14) -> None:
        self.words = np.zeros(size // 8, dtype="<u8")
        for address, word in words.items():
            self.words[address // 8] = word

    def holds(self, address: int, length: int) -> bool:
        return address >= 0 and address + length <= self.words.nbytes

    def read(self, address: int, length: int) -> bytes:
        return self.words.tobytes()[address : address + length]


def space(words: dict[int, int], layout: PageTables, levels: int) -> AddressSpace:
    return AddressSpace(cast("GuestMemory", Tables(words)), 0, levels, tables=layout)


def test_its_page_tables() -> None:
    # A table, in that a large page and a table, in that a page.
    walk = space({0: 0x1003, 0x1000: 0x40_0001, 0x1008: 0x2003, 0x2000: 0x1234_5003}, TOY.page_tables, 3)
    assert walk.translate(0x1234) == 0x40_1234
    assert walk.translate(0x20_0010) == 0x1234_5010
    assert walk.translate(0x20_1000) is None
    with pytest.raises(ValueError, match="page tables of 4 levels"):
        space({}, TOY.page_tables, 4)
    # The same bits say something else on x86-64, where bit 7 makes a large page.
    x86 = dataclasses.replace(arch.X86_64.page_tables, levels=(3,))
    assert space({0: 0x1003, 0x1000: 0x40_0081}, x86, 3).translate(0x1234) == 0x40_1234


@pytest.mark.parametrize("shift", [14, 16])
def test_tables_of_larger_pages(shift: int) -> None:
    """A table is one page of the kernel's, and so has more entries; an address has fewer levels."""
    page, layout = 1 << shift, arch.AARCH64.page_tables.of_pages(1 << shift)
    block, memory = page << layout.index_bits, Tables({}, 4 * page)
    last = (1 << layout.index_bits) - 1
    for place, entry in {
        0: page | 3,
        page: 0x80_0000_0000 | 1,  # an entry of the second level that is no table: a block
        page + 8: 2 * page | 3,
        2 * page: 0x1234_0000 | 3,
        2 * page + 8 * last: 0x5678_0000 | 3 | 1 << 54,  # not to be executed: no part of the address
    }.items():
        memory.words[place // 8] = entry
    walk = AddressSpace(cast("GuestMemory", memory), 0, 3, tables=layout)
    assert walk.translate(0x1234) == 0x80_0000_1234
    assert walk.translate(block + 0x1234) == 0x1234_1234
    assert walk.translate(2 * block - page + 5) == 0x5678_0005
    assert walk.translate(block + page) is None
    # All of one step: what a table of 4 KiB pages would map in four or sixteen.
    assert next(walk.runs(block, page)).length == page


def test_a_topmost_table_that_is_shorter() -> None:
    """Of 64 KiB pages and 52 bits it has 1024 entries, and an address of the kernel's leads to the last."""
    layout = arch.AARCH64.page_tables.of_pages(1 << 16)
    memory = Tables({}, 1 << 18)
    memory.words[1023], memory.words[(1 << 16) // 8 + 0x1FFF] = 1 << 16 | 3, 0x40_0000_0000 | 1
    walk = AddressSpace(cast("GuestMemory", memory), 0, 3, tables=layout, address_bits=52)
    assert walk.translate(0xFFFF_FFFF_FFFF_0000) == 0x40_1FFF_0000


def test_pages_that_an_architecture_does_not_have() -> None:
    assert arch.X86_64.page_tables.of_pages(4096) == arch.X86_64.page_tables
    for tables, size in ((arch.X86_64.page_tables, 16384), (arch.AARCH64.page_tables, 8192),
                         (arch.AARCH64.page_tables, 5000), (arch.AARCH64.page_tables, 0)):  # fmt: skip
        with pytest.raises(ValueError, match=f"pages of {size} bytes"):
            tables.of_pages(size)


@pytest.mark.parametrize(
    ("layout", "levels", "address", "accepted"),
    [
        (arch.X86_64.page_tables, 4, 0x0000_7FFF_FFFF_FFFF, True),
        (arch.X86_64.page_tables, 4, 0x0000_8000_0000_0000, False),
        (arch.X86_64.page_tables, 4, 0xFFFF_8000_0000_0000, True),
        (arch.X86_64.page_tables, 4, 0xFFFF_7FFF_FFFF_FFFF, False),
        (arch.X86_64.page_tables, 5, 0xFF00_0000_0000_0000, True),
        (arch.X86_64.page_tables, 5, 0xFEFF_FFFF_FFFF_FFFF, False),
        (TOY.page_tables, 3, 0x0000_007F_FFFF_FFFF, True),
        (TOY.page_tables, 3, 0x0000_0080_0000_0000, False),
        (TOY.page_tables, 3, 0xFFFF_FF80_0000_0000, True),
    ],
)
def test_which_addresses_there_are(layout: PageTables, levels: int, address: int, accepted: bool) -> None:
    assert layout.canonical(address, levels) == accepted


def test_a_board_is_of_a_kind_whatever_its_version() -> None:
    kinds = {
        "pc": "pc",
        "pc-i440fx-8.0": "pc",
        "pc-i440fx-rhel7.6.0": "pc",
        "q35": "q35",
        "pc-q35-7.2": "q35",
    }
    assert {name: arch.X86_64.board.family(name) for name in kinds} == kinds
    assert [arch.X86_64.board.family(name) for name in ("microvm", "isapc", "none", "pc-")] == [None] * 4
    assert TOY.board.family("virt-9.0") == "virt"


def test_which_one_guests_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(arch.ARCH_VARIABLE, raising=False)
    assert arch.guest() is arch.HOST
    monkeypatch.setenv(arch.ARCH_VARIABLE, "aarch64")
    assert arch.guest() is arch.AARCH64
    arch.demand_guest()
    monkeypatch.setenv(arch.ARCH_VARIABLE, "vax")
    with pytest.raises(InputError, match="guests on vax are not known here"):
        arch.demand_guest()


def test_an_arm64_image_says_its_release() -> None:
    head = b"MZ" + b"\0" * 0x36 + b"ARM\x64" + b"\0" * 64
    release = arch.AARCH64.kernel.release
    assert release(head + b"Linux version %s (%s)\0Linux version 6.1.0-9-arm64 (x@y)") == "6.1.0-9-arm64"
    assert release(head) is None
    assert release(b"\x7fELF" + b"\0" * 100) is None


def test_what_a_foreign_guest_cannot_have() -> None:
    def refused(name: str, *settings: str) -> str:
        scenario = load_scenario(name, list(settings))
        demand_architecture(scenario, TOY, TOY)
        with pytest.raises(InputError) as caught:
            demand_architecture(scenario, TOY, arch.X86_64)
        return caught.value.message

    end = "for guests on toy64 on this x86_64 machine"
    assert refused("compile").endswith(f"there is no workload compile {end}")
    assert refused("database").endswith(f"there is no guest.image debian {end}")
    assert refused("idle", "accelerator=kvm").endswith(f"there is no KVM {end}")
    assert refused("idle", "guest.kernel=debug").endswith(f"there is no debug kernel {end}")
    demand_architecture(load_scenario("freed"), TOY, arch.X86_64)
