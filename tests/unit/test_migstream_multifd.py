# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams of several connections: multifd, with and without compression, and postcopy."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.migstream.account import StreamedGuest, read_stream
from harness.migstream.source import StreamError, UnknownFormError
from tests.unit.test_migstream import (
    EOS,
    ONE,
    PAGE,
    TWO,
    delta,
    full,
    name,
    section,
    setup,
    stream,
    zero,
)

FLUSH = struct.pack(">Q", 0x200)
GREETING = struct.pack(">II16sB7s32s", 0x11223344, 1, b"u" * 16, 3, b"", b"")
Pack = Callable[[bytes], bytes]


def packet(
    whole: dict[int, bytes] | None = None,
    zeros: Sequence[int] = (),
    *,
    block: str = "pc.ram",
    flags: int = 0,
    pack: Pack = bytes,
) -> bytes:
    whole = whole or {}
    data = pack(b"".join(whole.values())) if whole else b""
    places = [page * PAGE for page in (*whole, *zeros)]
    head = struct.pack(">IIIIIIQI28s", 0x11223344, 1, flags, 128, len(whole), len(data), 7, len(zeros), b"")
    offsets = struct.pack(f">{len(places)}Q", *places).ljust(128 * 8, b"\0")
    return head + block.encode().ljust(256, b"\0") + offsets + data


def sync(**kind: int) -> bytes:
    return packet(flags=1 | kind.get("flags", 0))


def device() -> bytes:
    return struct.pack(">III256sII5s", 0x11223344, 1, 64, b"vfio", 0, 5, b"state")


def read(main: bytes, *channels: bytes, urgent: bytes | None = None, keep: bool = True) -> StreamedGuest:
    files = [io.BytesIO(one) for one in channels]
    return read_stream(io.BytesIO(main), files, None if urgent is None else io.BytesIO(urgent), keep=keep)


BLOCKS = {"pc.ram": 8 * PAGE, "rom": PAGE}


def announced(blocks: dict[str, int]) -> bytes:
    data = struct.pack(">Q", sum(blocks.values()) | 0x04)
    return data + b"".join(name(block) + struct.pack(">Q", size) for block, size in blocks.items())


def flushing(*middle: bytes, blocks: dict[str, int] = BLOCKS, mark: bytes = FLUSH) -> bytes:
    """A stream of a QEMU that waits in setup, by a flag of its own."""
    return stream(*middle).replace(setup(BLOCKS), section(1, 2, "ram", announced(blocks) + mark + EOS))


#: Two rounds: the main connection waits in setup, after the first and at the end.
MAIN = flushing(
    section(2, 2, "ram", zero(3, "pc.ram") + EOS),
    section(3, 2, "ram", FLUSH + full(0, TWO, "rom") + FLUSH + EOS),
)


def channels(flags: int, packs: tuple[Pack, Pack] = (bytes, bytes)) -> tuple[bytes, bytes]:
    first = packet({0: ONE, 1: ONE}, [4], flags=flags, pack=packs[0]) + sync()
    first += packet({3: TWO}, flags=flags, pack=packs[0]) + device() + sync()
    second = packet({2: TWO, 5: ONE}, flags=flags, pack=packs[1]) + sync()
    second += packet({0: TWO}, [5], flags=flags, pack=packs[1]) + sync()
    return GREETING + sync() + first, GREETING + sync() + second


def deflating() -> Pack:
    one = zlib.compressobj()
    return lambda data: one.compress(data) + one.flush(zlib.Z_SYNC_FLUSH)


def zstd() -> Pack:
    one = zstandard.ZstdCompressor().compressobj()
    return lambda data: one.compress(data) + one.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@pytest.mark.parametrize(
    ("flags", "packs"),
    [(0, (bytes, bytes)), (2, (deflating(), deflating())), (4, (zstd(), zstd()))],
    ids=["plain", "zlib", "zstd"],
)
def test_the_channels_are_loaded_where_the_main_connection_waits(
    flags: int, packs: tuple[Pack, Pack]
) -> None:
    both = channels(flags, packs)
    guest = read(MAIN, *both)
    ram = guest.blocks["pc.ram"]
    assert (ram.full, ram.zero) == (6, 3)
    assert list(ram.times) == [2, 1, 1, 2, 1, 2, 0, 0]
    assert not ram.unordered.any()
    # Page 3 was zero by the main connection first, page 0 came in the second round by the other channel.
    assert guest.memory["pc.ram"][:] == TWO + ONE + TWO + TWO + bytes(4 * PAGE)
    assert guest.blocks["rom"].full == 1
    assert guest.bytes.devices == 5
    assert (guest.bytes.whole == 7 * PAGE) == (flags == 0)
    assert guest.bytes.rest > 4 * 1344
    assert guest.bytes.total == len(MAIN) + sum(map(len, both))
    sendings = ram.sendings()
    third = sendings.page == 3
    assert list(sendings.round[third]) == [1, 2]
    assert list(sendings.how[third]) == [0, 1]
    assert sendings.digest[third][1] == xxhash.xxh3_64_intdigest(TWO)
    guest.close()


def test_where_every_section_waits() -> None:
    """Machines before QEMU 8.1 have no flag for it."""
    main = stream(section(2, 2, "ram", EOS), section(3, 2, "ram", full(0, TWO, "pc.ram") + EOS))
    channel = GREETING + sync() + packet({0: ONE}) + sync() + packet({1: ONE}, flags=1)
    guest = read(main, channel)
    # The packet of the last wait carries pages, which the main connection's are not ordered with.
    assert guest.memory["pc.ram"][: 2 * PAGE] == TWO + ONE
    assert not guest.blocks["pc.ram"].unordered.any()


def test_a_page_by_two_connections_at_once() -> None:
    main = flushing(section(3, 2, "ram", FLUSH + FLUSH + EOS))
    one = GREETING + sync() + packet({0: ONE, 1: ONE}) + sync()
    other = GREETING + sync() + packet({1: TWO}, [2]) + sync()
    guest = read(main, one, other)
    assert list(np.flatnonzero(guest.blocks["pc.ram"].unordered)) == [1]


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        (b"", "ends within a channel's greeting"),
        (b"\0" * 64, "no channel of multifd"),
        (GREETING + b"x" * 2000, "no packet of multifd"),
        (GREETING + packet({0: ONE})[:-1], "ends within a packet's contents"),
        (GREETING + packet({8: ONE}), "offset 0x8000 is not in 'pc.ram'"),
        (GREETING + packet({0: ONE}, block="nobody"), "not announced"),
        (GREETING + packet({0: ONE}, block=""), "no name"),
        (GREETING + packet({0: ONE}, flags=2), "cannot be unpacked"),
        (GREETING + packet({0: ONE}, flags=4), "cannot be unpacked"),
        (
            GREETING + packet({0: ONE}, flags=2, pack=lambda data: deflating()(data * 2)),
            "more than its pages",
        ),
        (GREETING + packet({0: ONE}, flags=2, pack=lambda data: deflating()(data[1:])), "4095 are there"),
        (GREETING + packet({0: ONE}, flags=4, pack=lambda data: zstd()(data[1:])), "4095 are there"),
        (GREETING + packet({0: ONE}, flags=6), "unknown compression"),
        (GREETING + packet({0: ONE}, flags=2, pack=lambda _: bytes(2 << 20)), "a packet of 2097152 bytes"),
        (GREETING + packet(dict.fromkeys(range(8), ONE), range(125)), "8 whole and 125 of zeros"),
    ],
)
def test_what_is_no_channel(channel: bytes, words: str) -> None:
    with pytest.raises(StreamError) as caught:
        read(stream(section(3, 2, "ram", FLUSH + FLUSH + EOS)), channel)
    assert words in caught.value.message


def test_what_is_not_read_is_told_from_what_is_wrong() -> None:
    channel = GREETING + packet({0: ONE}, flags=16 << 1)
    with pytest.raises(UnknownFormError, match="QATzip"):
        read(MAIN, channel)


def test_few_bytes_do_not_become_many() -> None:
    bomb = zlib.compressobj(9)
    data = bomb.compress(bytes(64 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(StreamError, match="more than its pages"):
        read(MAIN, GREETING + packet({0: ONE}, flags=2, pack=lambda _: data))
    bomb = zstandard.ZstdCompressor(level=19).compressobj()
    data = bomb.compress(bytes(64 << 20)) + bomb.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    # What is too much is left for the next packet, which then is not what it says.
    packets = packet({0: ONE}, flags=4, pack=lambda _: data) + packet({1: ONE}, flags=4, pack=lambda _: b"x")
    assert read(MAIN, GREETING + packets).memory["pc.ram"][: 2 * PAGE] == bytes(2 * PAGE)


def discard(*ranges: tuple[int, int], block: str = "pc.ram", version: int = 0) -> bytes:
    data = bytes([version]) + name(block) + b"\0"
    data += b"".join(struct.pack(">QQ", first * PAGE, count * PAGE) for first, count in ranges)
    return b"\x08" + struct.pack(">HH", 6, len(data)) + data


def test_postcopy_throws_away_and_brings_again() -> None:
    package = b"\x08" + struct.pack(">HH", 4, 0) + b"\x08" + struct.pack(">HH", 5, 0)
    main = stream(
        section(2, 2, "ram", b"".join(full(page, ONE, "pc.ram") for page in range(5)) + EOS),
        discard((1, 2), (4, 1)),
        b"\x08" + struct.pack(">HHI", 7, 4, len(package)) + package,
        section(3, 2, "ram", full(2, TWO, "pc.ram") + zero(4) + EOS),
        tail=b"\0",
    )
    urgent = full(1, TWO, "pc.ram") + EOS
    guest = read(main, urgent=urgent)
    ram = guest.blocks["pc.ram"]
    assert list(ram.valid) == [True] * 5 + [False] * 3
    assert list(ram.times[:5]) == [1, 2, 2, 1, 2]
    assert guest.memory["pc.ram"][: 5 * PAGE] == ONE + TWO + TWO + ONE + bytes(PAGE)
    assert not ram.unordered.any()
    assert guest.bytes.total == len(main) + len(urgent)
    # The end mark is not always there.
    assert read(main, urgent=urgent[: -len(EOS)]).blocks["pc.ram"].valid[1]
    # Nobody brought page 1 again.
    alone = read(main).blocks["pc.ram"]
    assert list(np.flatnonzero(~alone.valid[:5])) == [1]
    # By both connections, so that it is chance which is first.
    twice = read(main, urgent=full(2, ONE, "pc.ram") + EOS).blocks["pc.ram"]
    assert list(np.flatnonzero(twice.unordered)) == [2]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (discard((0, 9)), "a discard beyond 'pc.ram'"),
        (discard((0, 1), block="nobody"), "not announced"),
        (discard((0, 1)).replace(b"\0\x19", b"\0\x15")[:-4], "ends within"),
        (discard((0, 1), version=3), "another version"),
    ],
)
def test_what_is_no_discard(command: bytes, words: str) -> None:
    with pytest.raises(StreamError) as caught:
        read(stream(command))
    assert words in caught.value.message


def test_rounds_are_told_by_the_order_of_pages() -> None:
    first = full(0, ONE, "pc.ram") + full(1, ONE) + full(3, ONE) + zero(0, "rom")
    second = full(1, TWO, "pc.ram") + delta(2, b"\0\1x")
    third = full(2, TWO) + zero(0, "rom")
    guest = read(stream(section(3, 2, "ram", first + second + third + EOS)))
    sendings = guest.blocks["pc.ram"].sendings()
    assert list(zip(sendings.page, sendings.round, sendings.how, strict=True)) == [
        (0, 1, 1),
        (1, 1, 1),
        (3, 1, 1),
        (1, 2, 1),
        (2, 2, 2),
        (2, 3, 1),
    ]
    assert list(guest.blocks["rom"].sendings().round) == [1, 3]
    assert sendings.digest[4] == xxhash.xxh3_64_intdigest(b"x" + bytes(PAGE - 1))


PAGES = 600


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_runs_are_read_as_single_pages_are(data: st.DataObject) -> None:
    """Whatever is alike is read at once; what comes of it is what was sent, in that order."""
    memory, times = bytearray(PAGES * PAGE), np.zeros(PAGES, int)
    parts = [zero(0, "pc.ram")]
    times[0] += 1
    for _ in range(data.draw(st.integers(1, 6))):
        start, count = data.draw(st.integers(0, PAGES - 1)), data.draw(st.integers(1, 300))
        step, whole = data.draw(st.sampled_from([1, 1, 3, 0, -1])), data.draw(st.booleans())
        value = data.draw(st.integers(1, 255))
        for number in range(count):
            page = (start + step * number) % PAGES
            content = bytes([value]) * PAGE if whole else bytes(PAGE)
            parts.append(full(page, content) if whole else zero(page))
            memory[page * PAGE : (page + 1) * PAGE] = content
            times[page] += 1
    main = flushing(section(3, 2, "ram", b"".join(parts) + EOS), blocks={"pc.ram": PAGES * PAGE}, mark=b"")
    guest = read(main)
    assert guest.memory["pc.ram"][:] == memory
    assert (guest.blocks["pc.ram"].times == np.minimum(times, 255)).all()
    assert len(guest.blocks["pc.ram"].sendings().page) == times.sum()
    guest.close()


CASES = [
    (MAIN, channels(0)),
    (MAIN, channels(2, (deflating(), deflating()))),
    (MAIN, channels(4, (zstd(), zstd()))),
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_channel_does_harm(data: st.DataObject) -> None:
    """Connections that were changed, cut, exchanged or left out are read, or refused in words."""
    main, both = data.draw(st.sampled_from(CASES))
    changed = []
    for one in data.draw(st.permutations([main, *both])):
        bytes_ = bytearray(one)
        for _ in range(data.draw(st.integers(0, 4))):
            # Most of it is contents, which may be anything: heads are where it matters.
            at = data.draw(st.one_of(st.integers(0, len(bytes_) - 1), st.integers(0, 2000)))
            if at < len(bytes_):
                bytes_[at] = data.draw(st.integers(0, 255))
        changed.append(
            bytes(bytes_[: data.draw(st.one_of(st.just(len(bytes_)), st.integers(0, len(bytes_))))])
        )
    with contextlib.suppress(StreamError):
        read(*changed).close()
    with contextlib.suppress(StreamError):
        read(main, *changed[1:], urgent=changed[0], keep=data.draw(st.booleans())).close()
