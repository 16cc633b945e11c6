# SPDX-License-Identifier: GPL-2.0-or-later
"""A bad wire: which frames leave when, and a stream that ends at a byte."""

from __future__ import annotations

import random
import struct

import pytest

from harness.hosts.bad_wire import (
    BadWire,
    Conditions,
    Direction,
    Segment,
    StreamCut,
    _checksum,
    _summed,
)

HERE, THERE = (40000, 49152), (49152, 40000)
SYN, ACK = 0x02, 0x10


def frame(ports: tuple[int, int], sequence: int, payload: bytes = b"", flags: int = ACK) -> bytes:
    """A TCP segment over IPv4 over Ethernet."""
    ethernet = b"\x02" * 6 + b"\x04" * 6 + struct.pack("!H", 0x0800)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 1, 0, 64, 6, 0, b"\x0a\x4d\x01\x01", b"\x0a\x4d\x01\x02")
    tcp = struct.pack("!HHIIBBHHH", *ports, sequence % 2**32, 0, 5 << 4, flags, 1000, 0, 0)
    return _summed(bytearray(ethernet + ip + tcp + payload))


def is_sound(data: bytes) -> bool:
    """Whether both checksums of a frame are right: then what is summed up is 0."""
    pseudo = data[26:34] + struct.pack("!HH", 6, len(data) - 34)
    length = struct.unpack_from("!H", data, 16)[0]
    return _checksum(data[14:34]) == 0 and _checksum(pseudo + data[34:]) == 0 and length == len(data) - 14


def payload(data: bytes) -> bytes:
    segment = Segment.read(data)
    assert segment is not None
    return data[segment.header : segment.end]


def test_a_segment_is_read() -> None:
    data = frame(HERE, 7, b"abc") + b"\0\0"  # a short frame is padded
    segment = Segment.read(data)
    assert segment is not None
    assert (segment.ports, segment.sequence, segment.payload, segment.next_sequence) == (HERE, 7, 3, 10)
    assert is_sound(frame(HERE, 7, b"abc"))


@pytest.mark.parametrize("data", [b"", b"\0" * 60, frame(HERE, 1)[:40]])
def test_what_is_no_segment_passes(data: bytes) -> None:
    assert Segment.read(data) is None
    assert StreamCut(1, True).there(data) == data


@pytest.mark.parametrize("start", [100, 2**32 - 6])
@pytest.mark.parametrize("limit", [1, 9, 10, 11, 19, 20])
def test_the_stream_ends_at_the_byte(start: int, limit: int) -> None:
    cut = StreamCut(limit, resets=True)
    assert cut.there(frame(HERE, start, flags=SYN)) is not None
    assert cut.back(frame(THERE, 500, flags=SYN | ACK)) is not None
    sent = [frame(HERE, start + 1 + 10 * n, bytes(range(10 * n, 10 * n + 10))) for n in range(3)]
    passed = [kept for kept in map(cut.there, sent) if kept is not None]
    assert b"".join(map(payload, passed)) == bytes(range(limit))
    assert all(map(is_sound, passed))
    assert cut.done
    # Nothing more, in either direction.
    assert cut.back(frame(THERE, 501, b"x")) is None
    onward, home = sorted(cut.farewells(), reverse=True)
    for (there, data), expected in ((onward, start + 1 + limit), (home, 501)):
        segment = Segment.read(data)
        assert segment is not None
        assert is_sound(data)
        assert segment.flags == 0x14
        assert segment.sequence == expected % 2**32
        assert segment.ports == (HERE if there else THERE)


def test_what_is_sent_again_does_not_count_again() -> None:
    cut = StreamCut(15, resets=False)
    cut.there(frame(HERE, 0, flags=SYN))
    first = frame(HERE, 1, b"0123456789")
    assert cut.there(first) == cut.there(first) == first
    # Half of it is new.
    assert cut.there(frame(HERE, 6, b"56789abcde")) is not None
    assert cut.done
    last = StreamCut(12, resets=False)
    last.there(frame(HERE, 0, flags=SYN))
    last.there(first)
    kept = last.there(frame(HERE, 6, b"56789abcde"))
    assert kept is not None
    assert payload(kept) == b"56789ab"


def test_connections_count_together() -> None:
    cut = StreamCut(6, resets=True)
    other = (40001, 49152)
    for ports in (HERE, other):
        cut.there(frame(ports, 0, flags=SYN))
    assert cut.there(frame(HERE, 1, b"abcd")) is not None
    kept = cut.there(frame(other, 1, b"efgh"))
    assert kept is not None
    assert payload(kept) == b"ef"
    assert {Segment.read(data).ports for _, data in cut.farewells()} == {HERE, other}  # type: ignore[union-attr]


def test_a_connection_that_is_there_already_counts_from_now_on() -> None:
    cut = StreamCut(4, resets=True)
    kept = cut.there(frame(HERE, 1_000_000, b"abcdef"))
    assert kept is not None
    assert payload(kept) == b"abcd"


def test_delay_rate_and_loss() -> None:
    way = Direction(random.Random(1))
    assert way.due(1000, 10.0, Conditions()) == 10.0
    assert way.due(1000, 10.0, Conditions(delay=0.5)) == 10.5
    slow = Conditions(rate=1000.0)
    first, second = way.due(500, 20.0, slow), way.due(500, 20.0, slow)
    assert (first, second) == (20.5, 21.0)
    lost = [way.due(1, 0.0, Conditions(loss=0.25)) is None for _ in range(4000)]
    assert 800 < sum(lost) < 1200
    # What does not fit into the queue any more is dropped.
    full = Direction(random.Random(1))
    assert [full.due(1 << 20, 0.0, slow) for _ in range(3)][1:] == [None, None]


def test_a_frame_is_overtaken() -> None:
    wire = BadWire(seed=3)
    wire.conditions = Conditions(delay=0.010, reorder=0.3)
    for number in range(100):
        wire.take(bytes([number]), 0.0, there=True)
    left = [data[0] for _, data in wire.leaving(1.0)]
    assert sorted(left) == list(range(100))
    assert left != list(range(100))
    assert wire.patience(1.0) is None


def test_which_frames_are_lost_follows_from_the_seed() -> None:
    def survivors(seed: int) -> list[bytes]:
        wire = BadWire(seed)
        wire.obey({"conditions": {"delay": 0, "loss": 0.5, "reorder": 0, "rate": 0}})
        for number in range(50):
            wire.take(bytes([number]), 0.0, there=True)
        return [data for _, data in wire.leaving(0.0)]

    assert survivors(1) == survivors(1) != survivors(2)


def test_a_wire_is_cut_and_mended() -> None:
    wire = BadWire(seed=1)
    wire.obey({"cut_after": 3, "reset": True})
    wire.take(frame(HERE, 0, flags=SYN), 0.0, there=True)
    wire.take(frame(THERE, 0, flags=SYN | ACK), 0.0, there=False)
    assert wire.take(frame(HERE, 1, b"ab"), 0.0, there=True) is None
    assert wire.take(frame(HERE, 3, b"cd"), 0.0, there=True) == 3
    assert wire.take(frame(HERE, 5, b"ef"), 0.0, there=True) is None
    left = list(wire.leaving(0.0))
    # The farewells come last.
    assert [Segment.read(data).flags for _, data in left][-2:] == [0x14, 0x14]  # type: ignore[union-attr]
    wire.obey({"mend": True})
    wire.take(frame(HERE, 5, b"ef"), 0.0, there=True)
    assert len(list(wire.leaving(0.0))) == 1


@pytest.mark.parametrize(("flags", "sequence"), [(SYN, 0), (ACK, 0x1234), (SYN | ACK, 0x1234)])
def test_after_a_cut_with_a_reset_nobody_is_left_waiting(flags: int, sequence: int) -> None:
    wire = BadWire(seed=1)
    wire.obey({"cut_after": 1, "reset": True})
    wire.take(frame(HERE, 0, flags=SYN), 0.0, there=True)
    wire.take(frame(HERE, 1, b"ab"), 0.0, there=True)
    list(wire.leaving(0.0))
    other = bytearray(frame((40009, 49152), 77, flags=flags))
    struct.pack_into("!I", other, 42, sequence)
    wire.take(_summed(other), 0.0, there=True)
    [(onward, data)] = wire.leaving(0.0)
    answer = Segment.read(data)
    assert answer is not None
    assert not onward
    assert is_sound(data)
    assert (answer.ports, answer.flags) == ((49152, 40009), 0x14)
    assert (answer.sequence, answer.acknowledges) == (sequence, 77 + bool(flags & SYN))
    assert data[:12] == bytes(other[6:12] + other[:6])
    assert data[26:34] == bytes(other[30:34] + other[26:30])
    # A reset is answered by nobody; and who has an address may still be asked.
    wire.take(data, 0.0, there=False)
    wire.take(b"\xff" * 60, 0.0, there=True)
    assert [left for _, left in wire.leaving(0.0)] == [b"\xff" * 60]


def test_after_a_silent_cut_nobody_is_told() -> None:
    wire = BadWire(seed=1)
    wire.obey({"cut_after": 1, "reset": False})
    wire.take(frame(HERE, 1, b"ab"), 0.0, there=True)
    list(wire.leaving(0.0))
    wire.take(frame((40009, 49152), 77, flags=SYN), 0.0, there=True)
    assert list(wire.leaving(0.0)) == []
