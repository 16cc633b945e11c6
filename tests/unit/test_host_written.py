# SPDX-License-Identifier: GPL-2.0-or-later
"""A page is named as the host's only if it differs in nothing but the host's structure."""

from __future__ import annotations

import struct

import pytest

from harness.memory.host_written import VCPU_TIME, WALL_CLOCK, name_of, named_pages

PAGE = 4096


def page(*parts: tuple[int, bytes], fill: int = 0x5A) -> bytes:
    content = bytearray([fill]) * PAGE
    for offset, data in parts:
        content[offset : offset + len(data)] = data
    return bytes(content)


def wall(version: int, sec: int, nsec: int) -> bytes:
    return struct.pack("<III", version, sec, nsec)


def time(version: int, stamp: int, *, mul: int = 0x9AFD0000, shift: int = -1, pad: int = 0) -> bytes:
    return struct.pack("<IIQQIbB2s", version, pad, stamp, stamp * 2, mul, shift, 1, b"\0\0")


# As a nested KVM was seen to do it.
SOURCE, DESTINATION = wall(2, 1795466325, 783201970), wall(4, 1795466384, 637309000)


@pytest.mark.parametrize("offset", [0, 64, PAGE - 12])
def test_the_wall_clock(offset: int) -> None:
    assert name_of(page((offset, SOURCE)), page((offset, DESTINATION))) == WALL_CLOCK


@pytest.mark.parametrize(
    "destination",
    [
        wall(3, 1795466384, 637309000),  # in the midst of a write
        wall(6, 1795466384, 637309000),  # written twice
        wall(2, 1795466384, 637309000),  # not written by KVM
        wall(4, 1795466384, 1637309000),  # no nanoseconds
        wall(4, 1795466384 + 10**7, 0),  # months later
        wall(4, 5, 0),  # 1970
    ],
)
def test_what_is_no_wall_clock(destination: bytes) -> None:
    assert name_of(page((64, SOURCE)), page((64, destination))) is None


@pytest.mark.parametrize("offset", [0, 63, 76, 2000, PAGE - 1])
def test_one_more_byte_and_it_is_a_difference(offset: int) -> None:
    assert name_of(page((64, SOURCE)), page((64, DESTINATION), (offset, b"\0"))) is None


def test_times_of_vcpus() -> None:
    source = page((0, time(8, 1000)), (64, time(10, 1001)))
    assert name_of(source, page((0, time(12, 5000)), (64, time(10, 1001)))) == VCPU_TIME
    both = page((0, time(12, 5000)), (64, time(14, 5001)))
    assert name_of(source, both) == VCPU_TIME
    assert named_pages([(7, source, both)], 2) == {7: VCPU_TIME}
    # More of them than there are vCPUs.
    assert named_pages([(7, source, both)], 1) == {}


@pytest.mark.parametrize(
    "destination",
    [
        time(9, 5000),
        time(8, 5000),
        time(10, 5000, mul=1),
        time(10, 5000, mul=0),
        time(10, 5000, shift=2),
        time(10, 5000, pad=1),
    ],
)
def test_what_is_no_time_of_a_vcpu(destination: bytes) -> None:
    assert name_of(page((128, time(8, 1000))), page((128, destination))) is None


def test_a_guest_has_one_wall_clock() -> None:
    source, destination = page((0, SOURCE)), page((0, DESTINATION))
    assert named_pages([(3, source, destination)], 1) == {3: WALL_CLOCK}
    assert named_pages([(3, source, destination), (4, source, destination)], 1) == {}


def test_equal_and_unlike_pages_have_no_name() -> None:
    assert name_of(page(), page()) is None
    assert name_of(page(), page(fill=0)) is None
