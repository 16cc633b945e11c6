# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's types and symbols, and what a walk learns from them: per-cpu lists, names, locks."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.memory.walk import FreeWalk, KernelLayout, Kind, WalkError, find_kernel, walk_source
from harness.memory.walk.btf import HEADER, MAGIC, Btf, length
from harness.memory.walk.extras import Extras, PerCpuLayout
from harness.memory.walk.kallsyms import find_symbols
from tests.unit.fake_kernel import (
    FIRST_FREE,
    IMAGE,
    IMAGE_AT,
    KASLR,
    LRU,
    OFFSETS,
    PCP_AT,
    ZONE_LOCK,
    ZONE_PAGESET,
    FakeKernel,
)

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, CONST = 1, 2, 3, 4, 5, 6, 8, 10


class Types:
    """A BTF, written type by type; numbers count from 1, as theirs do."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = b"\0"

    def string(self, text: str) -> int:
        if not text:
            return 0
        place = len(self.strings)
        self.strings += text.encode() + b"\0"
        return place

    def add(self, kind: int, name: str, size: int, *extra: int, parts: int = 0, flag: bool = False) -> int:
        info = kind << 24 | parts | flag << 31
        self.types.append(struct.pack(f"<{3 + len(extra)}I", self.string(name), info, size, *extra))
        return len(self.types)

    def struct(self, name: str, size: int, *members: tuple[str, int, int], kind: int = STRUCT) -> int:
        words = [word for text, number, bits in members for word in (self.string(text), number, bits)]
        return self.add(kind, name, size, *words, parts=len(members))

    def enum(self, name: str, values: Mapping[str, int]) -> int:
        words = [word for text, value in values.items() for word in (self.string(text), value & 0xFFFF_FFFF)]
        return self.add(ENUM, name, 4, *words, parts=len(values))

    def content(self) -> bytes:
        types = b"".join(self.types)
        head = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(self.strings))
        return head + types + self.strings


def kernel_types() -> bytes:
    types = Types()
    number = types.add(INT, "int", 4, 32)
    longer = types.add(INT, "unsigned long", 8, 64)
    head = types.struct("list_head", 16, ("next", longer, 0), ("prev", longer, 64))
    array = types.add(ARRAY, "", 0, head, number, 6)
    alias = types.add(TYPEDEF, "lists_t", array)
    types.struct("per_cpu_pages", 112, ("lock", number, 0), ("count", number, 32), ("lists", alias, 128))
    inner = types.struct("", 16, ("flags", longer, 0), ("lock", number, 64))
    union = types.struct("", 16, ("", inner, 0), ("all", longer, 0), kind=UNION)
    types.struct("zone_type_of_another_kind", 8, ("lock", number, 0))
    types.struct(
        "zone", 2048, ("", types.add(CONST, "", union), 0), ("per_cpu_pageset", longer, ZONE_PAGESET * 8)
    )
    bits = types.add(ARRAY, "", 0, longer, number, 8)
    types.struct("cpumask", 64, ("bits", bits, 0))
    types.enum("zone_type", {"ZONE_DMA32": 0, "ZONE_NORMAL": 1, "ZONE_MOVABLE": 2, "__MAX_NR_ZONES": 3})
    types.enum("pageflags", {"PG_locked": 0, "PG_reserved": 14})
    types.enum("pagetype", {"PGTY_buddy": 0xF0, "PGTY_table": 0xFA, "PGTY_new": 0xFB, "PGTY_negative": -1})
    return types.content()


def test_types_are_found_by_name() -> None:
    types = Btf(kernel_types())
    assert types.offset("zone", "lock") == 8  # through a nameless struct in a nameless union
    assert types.offset("zone", "per_cpu_pageset") == ZONE_PAGESET
    assert types.elements("per_cpu_pages", "lists") == 6
    assert types.size("cpumask") == 64
    assert types.enum("pagetype")["PGTY_negative"] == -1


@pytest.mark.parametrize("question", [
    lambda types: types.size("nothing"), lambda types: types.offset("zone", "nothing"),
    lambda types: types.elements("zone", "lock"), lambda types: types.enum("zone"),
])  # fmt: skip
def test_types_that_are_not_there(question: object) -> None:
    with pytest.raises(WalkError):
        question(Btf(kernel_types()))  # type: ignore[operator]


def test_damaged_types() -> None:
    content = kernel_types()
    assert length(content) == len(content)
    rng = np.random.default_rng(1)
    for _ in range(300):
        spoilt = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 8)).tolist():
            spoilt[place] = int(rng.integers(0, 256))
        try:
            types = Btf(bytes(spoilt))
            types.offset("zone", "lock")
            types.elements("per_cpu_pages", "lists")
            types.enum("pagetype")
        except WalkError:
            pass
    loop = Types()
    loop.add(TYPEDEF, "a", 2)
    loop.add(TYPEDEF, "b", 1)
    loop.struct("zone", 8, ("", 1, 0), ("lock", 1, 0))
    with pytest.raises(WalkError, match="lead to each other"):
        Btf(loop.content()).offset("zone", "other")


# The symbol table

NAMES = ["Dinit_uts_ns", "tT", "A__per_cpu_offset", "D" + "x" * 200, "R__start_BTF", "R__stop_BTF",
         "D__cpu_possible_mask", "Dswapper_pg_dir"]  # fmt: skip
WAYS = ["base", "base-and-absolute", "place", "stext"]


def put_symbols(fake: FakeKernel, addresses: Sequence[int], way: str) -> None:
    """The table, at OFFSETS["symbols"], as one kernel or another keeps it."""
    start = OFFSETS["symbols"]
    tokens = [bytes([byte]) for byte in range(256)]
    tokens[1], tokens[2] = b"__", b"_BTF"
    table, index = b"", b""
    for token in tokens:
        index += struct.pack("<H", len(table))
        table += token.replace(b"\0", b"") + b"\0"
    names = b""
    for name in NAMES:
        packed = name.encode().replace(b"__", b"\1").replace(b"_BTF", b"\2")
        names += (
            bytes([len(packed)])
            if len(packed) < 0x80
            else bytes([len(packed) & 0x7F | 0x80, len(packed) >> 7])
        )
        names += packed
    places = {"num_syms": 0, "relative_base": 8, "token_index": 0x100, "token_table": 0x400, "names": 0x1000,
              "offsets": 0x3000}  # fmt: skip
    virtual = {name: IMAGE + KASLR + start + place for name, place in places.items()}
    base = IMAGE + KASLR
    offset = {
        "base": lambda _, address: address - base,
        "base-and-absolute": lambda _, address: base - 1 - address,
        "place": lambda number, address: address - (virtual["offsets"] + 4 * number),
        "stext": lambda _, address: address - base,
    }[way]
    packed = b"".join(struct.pack("<i", offset(number, address)) for number, address in enumerate(addresses))
    contents = {
        "num_syms": struct.pack("<I", len(NAMES)),
        "relative_base": struct.pack("<Q", base),
        "token_index": index,
        "token_table": table,
        "names": names,
        "offsets": packed,
    }
    for name, content in contents.items():
        fake.write(IMAGE_AT + start + places[name], content)
    lines = "".join(
        f"SYMBOL(kallsyms_{name})={address:x}\n"
        for name, address in virtual.items()
        if name != "relative_base" or way.startswith("base")
    )
    fake.note(fake.text() + lines + f"SYMBOL(_stext)={base:x}\n")


def symbol_addresses(fake: FakeKernel) -> list[int]:
    start = IMAGE + KASLR
    types = kernel_types()
    fake.write(IMAGE_AT + 0x20000, types)
    return [fake.symbol("uts"), start + 5, fake.symbol("percpu"), start + 6, start + 0x20000,
            start + 0x20000 + len(types), fake.symbol("mask"), fake.symbol("top")]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_symbols_however_they_are_kept(way: str) -> None:
    fake = FakeKernel()
    addresses = symbol_addresses(fake)
    put_symbols(fake, addresses, way)
    kernel = find_kernel(fake.guest())
    found = find_symbols(
        kernel.space(fake.guest()), kernel.info, ("__per_cpu_offset", "nothing", "__stop_BTF")
    )
    assert found == {"__per_cpu_offset": addresses[2], "__stop_BTF": addresses[5]}


def test_symbols_that_contradict_vmcoreinfo_are_not_believed() -> None:
    fake = FakeKernel()
    addresses = symbol_addresses(fake)
    addresses[0] += 8
    put_symbols(fake, addresses, "place")
    gaps = find_kernel(fake.guest()).extras.gaps
    assert len(gaps) == 1
    assert "in no known way" in gaps[0]


def test_what_a_kernel_is_learned_to_be() -> None:
    fake = FakeKernel()
    put_symbols(fake, symbol_addresses(fake), "place")
    kernel = find_kernel(fake.guest())
    assert kernel.extras.gaps == ()
    assert kernel.extras.zone_lock == ZONE_LOCK
    assert [kernel.zone_name(index) for index in range(3)] == ["DMA32", "Normal", "Movable"]
    assert kernel.marks.reserved == 1 << 14
    assert kernel.marks.types[0xFA] is Kind.PAGE_TABLE
    assert kernel.marks.types[0xFB] is Kind.KERNEL
    assert 0xF2 not in kernel.marks.types
    layout = kernel.extras.per_cpu
    assert layout == PerCpuLayout(ZONE_PAGESET, 4, 16, 6, fake.symbol("percpu"), fake.symbol("mask"), 512)


# Per-cpu lists

LISTS = 14
COUNT, LISTS_AT = 4, 24


def with_per_cpu(fake: FakeKernel, cpus: int = 2) -> KernelLayout:
    """Two processors, each with its pages of the zone that FIRST_FREE is in; all lists empty."""
    layout = PerCpuLayout(
        ZONE_PAGESET, COUNT, LISTS_AT, LISTS, fake.symbol("percpu"), fake.symbol("mask"), 64
    )
    fake.word(IMAGE_AT + OFFSETS["mask"], (1 << cpus) - 1)
    for cpu in range(cpus):
        fake.word(IMAGE_AT + OFFSETS["percpu"] + 8 * cpu, fake.direct + PCP_AT + 0x1000 * cpu)
        for zone in range(3):
            for number in range(LISTS):
                head = PCP_AT + 0x1000 * cpu + 0x400 * zone + LISTS_AT + 16 * number
                for link in (0, 8):
                    fake.word(head + link, fake.direct + head)
    for zone in range(3):
        fake.word(fake.zone_at(0, zone) + ZONE_PAGESET, 0x400 * zone)
    return replace(find_kernel(fake.guest()), extras=Extras(per_cpu=layout))


def keep(fake: FakeKernel, frame: int, cpu: int, number: int, pages: int) -> None:
    """Put a block on a processor's list."""
    home = PCP_AT + 0x1000 * cpu + 0x400
    head = home + LISTS_AT + 16 * number
    for inner in range(frame, frame + pages):
        fake.page(inner, refcount=0)
    page, first = fake.memmap(frame), fake.read(head)
    fake.word(page + LRU, first)
    fake.word(page + LRU + 8, fake.direct + head)
    fake.word(fake.physical(first) + 8, fake.link(frame))
    fake.word(head, fake.link(frame))
    fake.word(home + COUNT, fake.read(home + COUNT, 4) + pages, 4)


def walk(fake: FakeKernel, kernel: KernelLayout) -> FreeWalk:
    return walk_source(fake.image(), fake.gpa, kernel)


def test_pages_on_per_cpu_lists_are_named() -> None:
    fake = FakeKernel()
    kernel = with_per_cpu(fake)
    fake.free(0xC00, 3)
    fake.page(0x880, refcount=0)
    for frame, cpu, number, pages in (
        (FIRST_FREE, 0, 1, 1),
        (0x810, 0, 1, 1),
        (0x820, 1, 4, 2),
        (0xA00, 0, 12, 512),
    ):
        keep(fake, frame, cpu, number, pages)
    found = walk(fake, kernel)
    expected = {FIRST_FREE, 0x810, 0x820, 0x821, *range(0xA00, 0xC00)}
    assert set(np.flatnonzero(found.kind == Kind.PER_CPU).tolist()) == expected
    assert Kind(found.kind[0x880]) is Kind.LOOSE
    assert found.notes == ()
    assert int(found.free.sum()) == 8


def test_per_cpu_lists_that_are_odd_are_noted_and_end() -> None:
    fake = FakeKernel()
    kernel = with_per_cpu(fake)
    for frame in (FIRST_FREE, 0x810, 0x820):
        keep(fake, frame, 0, 1, 1)
    fake.word(fake.memmap(0x810) + LRU, fake.link(0x820))  # a cycle
    found = walk(fake, kernel)
    assert len(found.notes) == 1
    assert "pages are on its lists, it counts 3" in found.notes[0]
    for place in (fake.zone_at(0, 1) + ZONE_PAGESET, IMAGE_AT + OFFSETS["percpu"]):
        spoilt = FakeKernel()
        kernel = with_per_cpu(spoilt)
        spoilt.word(place, 0x1234_5678_9ABC)
        assert any("could not be read" in note for note in walk(spoilt, kernel).notes)


def test_per_cpu_lists_of_a_kernel_that_has_none_to_read() -> None:
    fake = FakeKernel()
    kernel = with_per_cpu(fake, cpus=0)
    assert walk(fake, kernel).notes == ()
