# SPDX-License-Identifier: GPL-2.0-or-later
"""A page is named as the host's only if it differs in nothing but what the guest has registered."""

from __future__ import annotations

import struct
import uuid

import pytest

from harness.memory.host_written import Page, guid_in_memory, name_of, named_pages
from harness.memory.registered import (
    ASYNC_PF,
    GENERATION,
    PV_EOI,
    SIZES,
    STEAL_TIME,
    VCPU_TIME,
    WALL_CLOCK,
    HostStructure,
    SourceFinding,
    agreed,
    from_registers,
)

PAGE = 4096
BASE = 0x7000


def page(*parts: tuple[int, bytes], fill: int = 0x5A) -> bytes:
    content = bytearray([fill]) * PAGE
    for offset, data in parts:
        content[offset : offset + len(data)] = data
    return bytes(content)


def both(source: bytes, destination: bytes) -> Page:
    return Page(7, BASE, source, destination)


def at(name: str, offset: int) -> HostStructure:
    return HostStructure(name, BASE + offset)


def wall(version: int, sec: int, nsec: int) -> bytes:
    return struct.pack("<III", version, sec, nsec)


def time(version: int, stamp: int, *, mul: int = 0x9AFD0000, shift: int = -1, pad: int = 0) -> bytes:
    return struct.pack("<IIQQIbB2s", version, pad, stamp, stamp * 2, mul, shift, 1, b"\0\0")


def steal(stolen: int, version: int, preempted: int = 0, flags: int = 0, pad: bytes = bytes(47)) -> bytes:
    return struct.pack("<QIIB47s", stolen, version, flags, preempted, pad)


def apf(flags: int, token: int, pad: bytes = bytes(56)) -> bytes:
    return struct.pack("<II56s", flags, token, pad)


# As a nested KVM was seen to do it.
SOURCE, DESTINATION = wall(2, 1795466325, 783201970), wall(4, 1795466384, 637309000)
GOOD = {
    WALL_CLOCK: (SOURCE, DESTINATION),
    VCPU_TIME: (time(8, 1000), time(12, 5000)),
    STEAL_TIME: (steal(77, 4, preempted=1), steal(99, 6)),
    PV_EOI: (struct.pack("<I", 1), struct.pack("<I", 0)),
    ASYNC_PF: (apf(0, 5), apf(1, 6)),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("offset", [0, 64, PAGE - 64])
def test_each_structure_has_its_name(name: str, offset: int) -> None:
    source, destination = GOOD[name]
    assert len(source) == SIZES[name]
    pages = both(page((offset, source)), page((offset, destination)))
    assert name_of(pages, [at(name, offset)]) == name


@pytest.mark.parametrize("name", GOOD)
def test_shape_alone_is_no_name(name: str) -> None:
    """The guest has registered nothing, or something else, or another place."""
    source, destination = GOOD[name]
    pages = both(page((64, source)), page((64, destination)))
    assert name_of(pages, []) is None
    assert name_of(pages, [at(name, 128)]) is None
    assert name_of(pages, [at(name, 64 + PAGE)]) is None
    assert name_of(pages, [at(name, 64 - PAGE)]) is None


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("offset", [0, 63, 128, 2000, PAGE - 1])
def test_one_more_byte_and_it_is_a_difference(name: str, offset: int) -> None:
    source, destination = GOOD[name]
    pages = both(page((64, source)), page((64, destination), (offset, b"\0")))
    assert name_of(pages, [at(name, 64)]) is None


def test_the_clock_is_written_once_for_each_processor() -> None:
    # Seen with two: 2, then 6.
    for version, vcpus, named in ((4, 1, True), (6, 2, True), (10, 4, True), (4, 2, False), (8, 2, False)):
        pages = both(page((64, SOURCE)), page((64, wall(version, 1795466384, 637309000))))
        found = name_of(pages, [at(WALL_CLOCK, 64)], vcpus=vcpus)
        assert (found == WALL_CLOCK) == named


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", GOOD)
def test_the_bytes_next_to_it_are_not_its(name: str, place: str) -> None:
    source, destination = GOOD[name]
    offset = 63 if place == "before" else 64 + SIZES[name]
    pages = both(page((64, source)), page((64, destination), (offset, b"\0")))
    assert name_of(pages, [at(name, 64)]) is None


@pytest.mark.parametrize(
    ("name", "destination"),
    [
        (WALL_CLOCK, wall(3, 1795466384, 637309000)),  # in the midst of a write
        (WALL_CLOCK, wall(6, 1795466384, 637309000)),  # written twice
        (WALL_CLOCK, wall(2, 1795466384, 637309000)),  # not written by KVM
        (WALL_CLOCK, wall(4, 1795466384, 1637309000)),  # no nanoseconds
        (WALL_CLOCK, wall(4, 1795466384 + 10**7, 0)),  # months later
        (WALL_CLOCK, wall(4, 5, 0)),  # 1970
        (VCPU_TIME, time(9, 5000)),
        (VCPU_TIME, time(8, 5000)),
        (VCPU_TIME, time(10, 5000, mul=1)),
        (VCPU_TIME, time(10, 5000, mul=0)),
        (VCPU_TIME, time(10, 5000, shift=2)),
        (VCPU_TIME, time(10, 5000, pad=1)),
        (STEAL_TIME, steal(99, 5)),
        (STEAL_TIME, steal(10**15, 6)),
        (STEAL_TIME, steal(99, 6, preempted=9)),
        (STEAL_TIME, steal(99, 6, flags=1)),
        (STEAL_TIME, steal(99, 6, pad=b"\1" * 47)),
        (PV_EOI, struct.pack("<I", 2)),
        (ASYNC_PF, apf(3, 6)),
        (ASYNC_PF, apf(1, 6, b"\1" * 56)),
    ],
)
def test_what_does_not_have_the_shape(name: str, destination: bytes) -> None:
    source = GOOD[name][0]
    assert name_of(both(page((64, source)), page((64, destination))), [at(name, 64)]) is None


def test_several_structures_on_one_page() -> None:
    places = {STEAL_TIME: 0, ASYNC_PF: 64, PV_EOI: 128, VCPU_TIME: 192}
    structures = [at(name, offset) for name, offset in places.items()]
    source = page(*((offset, GOOD[name][0]) for name, offset in places.items()))
    destination = page(*((offset, GOOD[name][1]) for name, offset in places.items()))
    name = "kvm-async-page-fault+kvm-pv-eoi+kvm-steal-time+kvmclock-vcpu-time"
    assert name_of(both(source, destination), structures) == name
    assert named_pages([both(source, destination)], structures) == {7: name}
    # Of several, one that is not what it should be is enough.
    spoilt = page(*((offset, GOOD[name][1]) for name, offset in places.items()), (128, b"\7"))
    assert named_pages([both(source, spoilt)], structures) == {}
    # What did not change does not lend its name.
    one = page(*((offset, GOOD[name][0]) for name, offset in places.items()), (128, GOOD[PV_EOI][1]))
    assert name_of(both(source, one), structures) == PV_EOI


def test_a_structure_over_the_pages_end_explains_nothing() -> None:
    offset = PAGE - 4
    pages = both(page((offset, b"\2\0\0\0")), page((offset, b"\4\0\0\0")))
    assert name_of(pages, [at(WALL_CLOCK, offset)]) is None


def test_equal_and_unlike_pages_have_no_name() -> None:
    structures = [at(WALL_CLOCK, 64)]
    assert name_of(both(page(), page()), structures) is None
    assert name_of(both(page(), page(fill=0)), structures) is None


def test_a_generation_id_is_what_both_qemus_say() -> None:
    one, two, other = (uuid.UUID(int=n << 100 | 0xABCDEF) for n in (1, 2, 3))
    here, there = (guid_in_memory(str(guid)) for guid in (one, two))
    assert here == one.bytes_le
    pages = both(page((40, here)), page((40, there)))
    structures = [at(GENERATION, 40)]
    assert name_of(pages, structures, (here, there)) == GENERATION
    assert name_of(pages, structures, (here, guid_in_memory(str(other)))) is None
    assert name_of(pages, structures, (there, here)) is None
    assert name_of(pages, structures) is None
    for text in ("", "x" * 36, "1-2-3-4-5", str(one)[:-1]):
        with pytest.raises(ValueError, match=r"GUID|hex"):
            guid_in_memory(text)


REGISTERS = {
    "wall_clock": 0x3F_1000,
    "system_time": 0x3F_2001,
    "steal_time": 0x3F_3041,
    "pv_eoi": 0x3F_4005,
    "async_pf": 0x3F_5047,
}


def test_registers_say_where() -> None:
    source = from_registers([REGISTERS])
    assert source.structures == {
        HostStructure(WALL_CLOCK, 0x3F_1000),
        HostStructure(VCPU_TIME, 0x3F_2000),
        HostStructure(STEAL_TIME, 0x3F_3040),
        HostStructure(PV_EOI, 0x3F_4004),
        HostStructure(ASYNC_PF, 0x3F_5040),
    }
    assert source.knows == {WALL_CLOCK, VCPU_TIME, STEAL_TIME, PV_EOI, ASYNC_PF}
    # Not in use, or not there.
    nothing = {"system_time": 0x3F_2000, "steal_time": None, "wall_clock": 0}
    assert from_registers([nothing]).structures == frozenset()
    # The wall clock is the guest's, and each processor says so.
    assert len(from_registers([REGISTERS, REGISTERS]).structures) == 5
    assert from_registers([]).structures == frozenset()


def test_only_what_all_say_counts() -> None:
    one, two, three = (
        HostStructure(WALL_CLOCK, 0x1000),
        HostStructure(STEAL_TIME, 0x2000),
        HostStructure(PV_EOI, 4),
    )
    registers = SourceFinding("registers", frozenset({one, two}), frozenset({WALL_CLOCK, STEAL_TIME, PV_EOI}))
    kernel = SourceFinding("kernel", frozenset({one, three}), frozenset({WALL_CLOCK, PV_EOI}))
    found = agreed([registers, kernel])
    # Of the stolen time the kernel cannot tell; of the interrupts the registers say that there is none.
    assert found.structures == {one, two}
    assert found.unconfirmed == {three}
    assert found.by == ("registers", "kernel")
    moved = SourceFinding("kernel", frozenset({HostStructure(WALL_CLOCK, 0x9000)}), frozenset({WALL_CLOCK}))
    assert agreed([registers, moved]).structures == {two}
    assert agreed([kernel]).structures == {one, three}
    assert agreed([]).by == ()
    assert agreed([]).structures == frozenset()
