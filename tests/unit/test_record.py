# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's record: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MachineryError
from harness.memory.record import Accept, MigrationRecord, PackedFlags, Request, parse_record, read_record

ACCEPT, SENT, END, REQUEST, BLOCKS, COUNTERS = 1, 2, 3, 4, 5, 6


def record(
    kind: int,
    payload: bytes = b"",
    *,
    id_: int = 0,
    generation: int = 0,
    block: str = "",
    start: int = 0,
    pages: int = 0,
    magic: bytes = b"FPIR",
    length: int | None = None,
) -> bytes:
    size = len(payload) if length is None else length
    header = struct.pack("<4sIQQ64sQQQ", magic, kind, id_, generation, block.encode(), start, pages, size)
    assert len(header) == 112
    return header + payload


def bitmap(*bits: int, pages: int) -> bytes:
    words = bytearray(-(-pages // 64) * 8)
    for bit in bits:
        words[bit // 8] |= 1 << (bit % 8)
    return bytes(words)


def blocks(name: str = "pc.ram", pages: int = 100, gpa: object = ((0, 0, 409600),)) -> bytes:
    return record(BLOCKS, json.dumps({"gpa": gpa}).encode(), block=name, pages=pages)


def request(id_: int = 5, generation: int = 2) -> bytes:
    return record(REQUEST, id_=id_, generation=generation, start=0, pages=100)


def accept(*, start: int = 10, pages: int = 70) -> bytes:
    payload = bitmap(0, 3, 69, pages=pages) + bitmap(3, pages=pages)
    return record(ACCEPT, payload, id_=5, generation=2, block="pc.ram", start=start, pages=pages)


def sent(*bits: int) -> bytes:
    return record(SENT, bitmap(*bits, pages=100), block="pc.ram", pages=100)


def end(**counters: object) -> bytes:
    return record(END, json.dumps(counters).encode())


WHOLE = blocks() + request() + accept() + sent(0, 99) + end(skipped=1, refused="", id=5)


def parse(data: bytes) -> list[MigrationRecord]:
    return parse_record(io.BytesIO(data), "record")


def test_what_the_device_has_counted_and_what_the_migration_has() -> None:
    counters = record(COUNTERS, json.dumps({"skipped": 3}).encode())
    (migration,) = parse(blocks() + counters + sent(0) + end(**{"dirty-pages": 2, "dirty-bits": 2}))
    assert migration.complete
    assert migration.statistics == {"skipped": 3, "dirty-pages": 2, "dirty-bits": 2}
    # Of the instruments alone
    (plain,) = parse(blocks() + sent(0) + end(**{"dirty-pages": 2, "dirty-bits": 2}))
    assert plain.complete
    assert plain.statistics == {"dirty-pages": 2, "dirty-bits": 2}
    # It ended behind the counters: what comes next is another migration.
    first, second = parse(blocks() + counters + WHOLE)
    assert (first.complete, second.complete) == (False, True)


def test_a_whole_migration() -> None:
    (migration,) = parse(WHOLE)
    assert migration.complete
    block = migration.blocks["pc.ram"]
    assert (block.pages, block.gpa) == (100, ((0, 0, 409600),))
    asked, answer = migration.log
    assert asked == Request(5, 2, 0, 100)
    assert isinstance(answer, Accept)
    assert (answer.id, answer.generation, answer.block, answer.first) == (5, 2, "pc.ram", 10)
    assert np.flatnonzero(answer.reported.flags()).tolist() == [0, 3, 69]
    assert np.flatnonzero(answer.cleared.flags()).tolist() == [3]
    assert (answer.reported.count(), answer.cleared.count(), answer.is_hint) == (3, 1, False)
    assert np.flatnonzero(migration.sent["pc.ram"].flags()).tolist() == [0, 99]
    assert migration.statistics == {"skipped": 1, "refused": "", "id": 5}
    assert (migration.requests, migration.accepts) == ((asked,), (answer,))


def test_a_second_migration_counts_for_itself() -> None:
    second = blocks() + request(6, 4) + sent() + end(skipped=4, refused="", id=6)
    one, two = parse(WHOLE + second)
    assert one.statistics == {"skipped": 1, "refused": "", "id": 5}
    assert two.statistics == {"skipped": 3, "refused": "", "id": 6}
    assert two.totals == {"skipped": 4, "refused": "", "id": 6}
    assert two.complete
    assert two.log == (Request(6, 4, 0, 100),)


def test_a_migration_without_an_end() -> None:
    for data in (blocks(), blocks() + request(), blocks() + end(skipped=0)):
        (migration,) = parse(data)
        assert not migration.complete
    one, two = parse(blocks() + blocks())
    assert not one.complete
    assert not two.complete
    assert parse(b"") == []
    assert not MigrationRecord().complete


def test_a_hint() -> None:
    hint = record(ACCEPT, bitmap(pages=1) * 2, id_=2**64 - 1, block="pc.ram", pages=1)
    (migration,) = parse(blocks() + hint)
    assert migration.accepts[0].is_hint


def test_every_truncation_is_noticed() -> None:
    """Cut anywhere: an error, or a record that says itself that it has no end."""
    unreadable = 0
    for length in range(1, len(WHOLE)):
        try:
            migrations = parse(WHOLE[:length])
        except MachineryError as error:
            assert "truncated" in str(error)
            unreadable += 1
        else:
            assert not any(migration.complete for migration in migrations)
    # All but the cuts between two records.
    assert unreadable == len(WHOLE) - 1 - 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (record(REQUEST, magic=b"FPIX"), "not a record of this version"),
        (record(9), "not a record of this version"),
        (record(REQUEST, b"12345678"), "implausible"),
        (record(SENT, block="x", pages=1 << 40, length=1 << 60), "implausible"),
        (record(END, length=1 << 40), "implausible"),
        (record(ACCEPT, bitmap(pages=64), block="pc.ram", pages=64), "need 16 bytes of payload, not 8"),
        (accept(), "which no BLOCKS record"),
        (blocks() + accept(start=31), "reaches past the end"),
        (blocks() + record(SENT, bitmap(pages=64), block="pc.ram", pages=64), "exactly once"),
        (blocks() + record(SENT, bitmap(pages=100), block="pc.ram", start=1, pages=100), "exactly once"),
        (blocks() + sent() + sent(), "exactly once"),
        (blocks() + sent(100), "bits are set past its last page, 100"),
        (WHOLE + request(), "comes after END"),
        (record(END, b"{"), "not JSON"),
        (record(END, b"[1]"), "not a JSON object"),
        (record(END, b"\xff\xfe{"), "not JSON"),
        (blocks(gpa=[[1, 2]]), "not a list of"),
        (blocks(gpa=5), "not a list of"),
        (blocks(gpa=[[0, -1, 5]]), "negative"),
        (blocks(gpa=[[0, float("inf"), 5]]), "not a list of"),
    ],
)
def test_what_is_not_a_record(data: bytes, message: str) -> None:
    with pytest.raises(MachineryError, match=message) as caught:
        parse(data)
    assert str(caught.value).startswith("record: record ")


def test_a_block_whose_name_is_not_text() -> None:
    data = bytearray(blocks())
    data[24] = 0xFF
    with pytest.raises(MachineryError, match="name is not text"):
        parse(bytes(data))


@given(st.binary(max_size=400), st.integers(0, len(WHOLE)), st.integers(0, 40))
@settings(max_examples=400)
def test_damage_never_ends_in_anything_but_our_error(noise: bytes, at: int, drop: int) -> None:
    with contextlib.suppress(MachineryError):
        parse(WHOLE[:at] + noise + WHOLE[at + drop :])


@given(st.lists(st.booleans(), max_size=200))
def test_packing(flags: list[bool]) -> None:
    packed = PackedFlags.pack(np.array(flags, dtype=np.bool_))
    assert packed.flags().tolist() == flags
    assert packed.count() == sum(flags)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "record"
    with pytest.raises(MachineryError, match="cannot read the device's record"):
        read_record(path)
    path.write_bytes(WHOLE)
    assert read_record(path)[0].complete
