# SPDX-License-Identifier: GPL-2.0-or-later
"""The record of a migration, which QEMU appends to a file for the oracle.

    for migration in read_record(path):     # a QEMU that migrates twice appends again
        migration.blocks, migration.log, migration.sent, migration.statistics

The record says what the device did, not whether that was right; the verdict
looks for contradictions in it.  This module only refuses what is not a record:
a record that cannot be read is an error, never an empty one.

On disk, little endian: a header of 112 bytes, then the payload.

=== ======== ================================================================
 1  ACCEPT   a chunk of an answer was applied: bitmaps ``reported``, ``cleared``
 2  SENT     at the end: bitmap of the pages sent at least once, one a block
 3  END      at the end: JSON of what was counted of dirty pages and bits
 4  REQUEST  a request left; start_page and npages are its window in guest frames
 5  BLOCKS   at the start: one a migrated RAMBlock, JSON with its guest addresses
 6  COUNTERS at the end, of a QEMU with free page info: JSON of the device's statistics
=== ======== ================================================================
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from harness.errors import MachineryError
from harness.memory.image import Flags
from harness.units import PAGE_SIZE

_HEADER = struct.Struct("<4sIQQ64sQQQ")
_MAGIC = b"FPIR"
ACCEPT, SENT, END, _REQUEST, BLOCKS, COUNTERS = 1, 2, 3, 4, 5, 6
_NAMES = {
    ACCEPT: "ACCEPT",
    SENT: "SENT",
    END: "END",
    _REQUEST: "REQUEST",
    BLOCKS: "BLOCKS",
    COUNTERS: "COUNTERS",
}

#: Upstream's hints have no request; QEMU records them under this, plus the command id.
HINT_ID = 0xFFFFFFFF << 32

#: No block has more pages than this (16 TiB); a larger number is a damaged header.
_MOST_PAGES = 1 << 32
_MOST_JSON = 1 << 24

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PackedFlags:
    """A bitmap as it is in the file: an eighth of a byte a page."""

    bits: Bits
    pages: int

    def flags(self) -> Flags:
        """One bool a page."""
        return np.unpackbits(self.bits, count=self.pages, bitorder="little").view(np.bool_)

    def has(self, number: int) -> bool:
        """Whether one bit is set."""
        return bool(self.bits[number >> 3] >> (number & 7) & 1)

    def count(self) -> int:
        """How many bits are set."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    @classmethod
    def pack(cls, flags: Flags) -> PackedFlags:
        """The opposite of :meth:`flags`."""
        return cls(np.packbits(flags, bitorder="little"), len(flags))


@dataclass(frozen=True)
class Block:
    """A migrated RAMBlock; ``gpa``: (guest address, offset in the block, length), in bytes."""

    name: str
    pages: int
    gpa: tuple[tuple[int, int, int], ...] = ()

    def frame(self, page: int) -> int | None:
        """The guest frame number of a page, or None where the guest cannot see it."""
        offset = page * PAGE_SIZE
        for address, start, length in self.gpa:
            if start <= offset < start + length:
                return (address + offset - start) // PAGE_SIZE
        return None

    def page(self, frame: int) -> int | None:
        """The page that the guest sees at a frame number, or None where it is not this block's."""
        at = frame * PAGE_SIZE
        for address, start, length in self.gpa:
            page = (start + at - address) // PAGE_SIZE
            if address <= at < address + length and page < self.pages:
                return page
        return None


@dataclass(frozen=True)
class Request:
    """A request left the device."""

    id: int
    generation: int
    first_frame: int
    frames: int


@dataclass(frozen=True, eq=False)
class Accept:
    """A chunk of an answer was applied to ``block`` from ``first`` on.

    ``reported``: what the guest called free; ``cleared``: what of it was marked
    dirty until now, and no longer is.
    """

    id: int
    generation: int
    block: str
    first: int
    reported: PackedFlags
    cleared: PackedFlags

    @property
    def is_hint(self) -> bool:
        """Whether this is one of upstream's hints, which answer no request."""
        return self.id & HINT_ID == HINT_ID


@dataclass(frozen=True, eq=False)
class MigrationRecord:
    """All that was recorded of one migration, ``log`` in the order in which it happened."""

    blocks: Mapping[str, Block] = field(default_factory=dict)
    log: tuple[Request | Accept, ...] = ()
    sent: Mapping[str, PackedFlags] = field(default_factory=dict)
    statistics: Mapping[str, object] | None = None
    """The device's counters, of this migration alone."""
    totals: Mapping[str, object] | None = None
    """The same as written: the device counts on through all migrations of its process."""

    @property
    def complete(self) -> bool:
        """Whether the migration reached its end, and the record with it."""
        return self.statistics is not None and self.sent.keys() == self.blocks.keys()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests, in order."""
        return tuple(entry for entry in self.log if isinstance(entry, Request))

    @property
    def accepts(self) -> tuple[Accept, ...]:
        """The applied chunks, in order."""
        return tuple(entry for entry in self.log if isinstance(entry, Accept))


@dataclass(frozen=True)
class _Raw:
    number: int
    kind: int
    id: int
    generation: int
    block: str
    start: int
    pages: int
    payload: bytes
    where: str

    def fail(self, problem: str) -> MachineryError:
        return MachineryError(f"{self.where}: {problem}")


def _raw_records(file: BinaryIO, name: str) -> Iterator[_Raw]:
    number, offset = 0, 0
    while header := file.read(_HEADER.size):
        where = f"{name}: record {number} at byte {offset}"
        if len(header) < _HEADER.size:
            raise MachineryError(f"{where}: truncated: {len(header)} of {_HEADER.size} bytes of its header")
        magic, kind, id_, generation, block, start, pages, length = _HEADER.unpack(header)
        if magic != _MAGIC or kind not in _NAMES:
            raise MachineryError(f"{where}: not a record of this version (magic {magic!r}, type {kind})")
        where += f" ({_NAMES[kind]})"
        words = -(-pages // 64) * 8
        expected = {ACCEPT: 2 * words, SENT: words, _REQUEST: 0}.get(kind)
        if pages > _MOST_PAGES or length > (_MOST_JSON if expected is None else expected):
            raise MachineryError(f"{where}: implausible: {pages} pages, payload of {length} bytes")
        if expected is not None and length != expected:
            raise MachineryError(f"{where}: {pages} pages need {expected} bytes of payload, not {length}")
        payload = file.read(length)
        if len(payload) < length:
            raise MachineryError(f"{where}: truncated: {len(payload)} of {length} bytes of its payload")
        try:
            block_name = block.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise MachineryError(f"{where}: the block's name is not text: {block!r}") from error
        yield _Raw(number, kind, id_, generation, block_name, start, pages, payload, where)
        number += 1
        offset += _HEADER.size + length


def _bitmap(raw: _Raw, half: int, halves: int) -> PackedFlags:
    size = len(raw.payload) // halves
    bits = np.frombuffer(raw.payload, dtype=np.uint8, count=size, offset=half * size)
    packed = PackedFlags(bits, raw.pages)
    # Compared with what flags() keeps: a bit past the end would be lost without a word.
    if packed.count() != int(np.count_nonzero(packed.flags())):
        raise raw.fail(f"bits are set past its last page, {raw.pages}")
    return packed


def _json(raw: _Raw) -> Mapping[str, object]:
    try:
        value = json.loads(raw.payload.rstrip(b"\0"))
    except ValueError as error:  # UnicodeDecodeError is one too
        raise raw.fail(f"its payload is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise raw.fail("its payload is not a JSON object")
    return value


def _block(raw: _Raw) -> Block:
    ranges = _json(raw).get("gpa", [])
    try:
        gpa = tuple((int(a), int(o), int(n)) for a, o, n in ranges)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError) as error:
        raise raw.fail("gpa is not a list of [address, offset, length]") from error
    # A block may be mapped with more than its used length: no page has a frame there.
    if any(a < 0 or o < 0 or n < 0 for a, o, n in gpa):
        raise raw.fail("gpa has a negative number")
    return Block(raw.block, raw.pages, gpa)


class _Builder:
    """Collects one migration."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.log: list[Request | Accept] = []
        self.sent: dict[str, PackedFlags] = {}
        self.counters: Mapping[str, object] = {}
        self.statistics: Mapping[str, object] | None = None

    @property
    def started(self) -> bool:
        """Whether more than its list of blocks was seen."""
        return bool(self.log or self.sent or self.counters or self.statistics is not None)

    def known(self, raw: _Raw) -> Block:
        if raw.block not in self.blocks:
            raise raw.fail(f"is about {raw.block!r}, which no BLOCKS record of this migration lists")
        return self.blocks[raw.block]

    def add(self, raw: _Raw) -> None:
        if self.statistics is not None:
            raise raw.fail("comes after END")
        if raw.kind == BLOCKS:
            self.blocks[raw.block] = _block(raw)
        elif raw.kind == _REQUEST:
            self.log.append(Request(raw.id, raw.generation, raw.start, raw.pages))
        elif raw.kind == ACCEPT:
            if raw.start + raw.pages > self.known(raw).pages:
                raise raw.fail(f"reaches past the end of {raw.block!r}")
            reported, cleared = _bitmap(raw, 0, 2), _bitmap(raw, 1, 2)
            self.log.append(Accept(raw.id, raw.generation, raw.block, raw.start, reported, cleared))
        elif raw.kind == SENT:
            if raw.start != 0 or raw.pages != self.known(raw).pages or raw.block in self.sent:
                raise raw.fail(f"does not cover {raw.block!r} exactly once")
            self.sent[raw.block] = _bitmap(raw, 0, 1)
        elif raw.kind == COUNTERS:
            self.counters = _json(raw)
        else:
            self.statistics = {**self.counters, **_json(raw)}

    def build(self, before: Mapping[str, object] | None) -> MigrationRecord:
        own = None if self.statistics is None else _since(self.statistics, before or {})
        return MigrationRecord(self.blocks, tuple(self.log), self.sent, own, self.statistics)


def _since(now: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    counted = dict(now)
    for key, value in before.items():
        this = counted.get(key)
        # Identifiers and the last arming's time are states, not sums.
        if isinstance(value, int) and isinstance(this, int) and key not in ("id", "generation", "arming-ns"):
            counted[key] = this - value
    return counted


def parse_record(file: BinaryIO, name: str) -> list[MigrationRecord]:
    """Every migration in an open record file, oldest first; empty if nothing was recorded."""
    migrations: list[MigrationRecord] = []
    current, totals = _Builder(), None
    for raw in _raw_records(file, name):
        if raw.kind == BLOCKS and (current.started or raw.block in current.blocks):
            migrations.append(current.build(totals))
            totals = current.statistics or totals
            current = _Builder()
        current.add(raw)
    if current.blocks or current.started:
        migrations.append(current.build(totals))
    return migrations


def read_record(path: Path | str) -> list[MigrationRecord]:
    """:func:`parse_record` of a file; a missing file is an error of the machinery."""
    try:
        with Path(path).open("rb") as file:
            return parse_record(file, str(path))
    except OSError as error:
        raise MachineryError(f"cannot read the device's record {path}: {error.strerror}") from error
