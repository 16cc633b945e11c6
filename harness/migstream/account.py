# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream amounts to: which page was sent how often and how, and what a destination then holds."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from harness.migstream.connections import Connections
from harness.migstream.ledger import BlockAccount, Ledger, PageSendings
from harness.migstream.ram import PageForm, PageRun, StreamedBlock
from harness.migstream.reader import StreamContents, StreamReader
from harness.migstream.source import Readable, StreamError

__all__ = ["BlockAccount", "PageSendings", "StreamBytes", "StreamedGuest", "read_stream"]

#: Pages of a mapped-ram file that are read at once.
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class StreamBytes:
    """Bytes of all connections, by what they are; ``rest``: heads, marks of pages of zeros, commands."""

    total: int
    whole: int
    deltas: int
    devices: int

    @property
    def rest(self) -> int:
        """All that is none of these."""
        return self.total - self.whole - self.deltas - self.devices


@dataclass(frozen=True, eq=False, slots=True)
class StreamedGuest:
    """A whole stream.

    ``memory`` is what a destination whose memory was zero holds when it has loaded all
    of it, by block; a block that nobody put together is missing.
    """

    contents: StreamContents
    blocks: Mapping[str, BlockAccount]
    memory: Mapping[str, mmap.mmap]
    #: The same as files without a name, of as many bytes as the block has pages.
    files: Mapping[str, int]
    bytes: StreamBytes

    def close(self) -> None:
        """Give the memory back."""
        for one in self.memory.values():
            one.close()
        for file in self.files.values():
            os.close(file)


def read_stream(
    file: BinaryIO, channels: Sequence[Readable] = (), urgent: Readable | None = None, *, keep: bool = True
) -> StreamedGuest:
    """Read a stream to its end.

    ``channels``: the connections of multifd; ``urgent``: that of postcopy-preempt.
    ``keep``: put memory together, which takes as much as the guest has in use.  A
    mapped-ram file has to be seekable.  Raises :class:`StreamError`.
    """
    ledger = Ledger(keep=keep)
    connections = Connections(ledger, channels, urgent)
    reader = StreamReader(connections)
    connections.belongs_to(reader)
    contents = reader.read(file)
    connections.finish()
    for block in reader.ram.blocks.values() if reader.ram is not None else ():
        if block.name not in ledger.blocks:
            ledger.announce(block)
        if block.mapped is not None:
            _take_mapped(file, block, ledger)
    mapped = reader.ram is not None and any(block.mapped for block in reader.ram.blocks.values())
    size = StreamBytes(
        contents.size + connections.size,
        sum(block.full * block.page_size for block in ledger.blocks.values())
        if mapped
        else connections.whole_bytes,
        sum(block.delta_bytes for block in ledger.blocks.values()),
        sum(len(device.state) for device in contents.devices) + connections.device_bytes,
    )
    return StreamedGuest(contents, ledger.blocks, ledger.memory, ledger.files, size)


def _take_mapped(file: BinaryIO, block: StreamedBlock, ledger: Ledger) -> None:
    """The pages of mapped-ram are at fixed places; a bitmap says which of them count."""
    assert block.mapped is not None
    pages = -(-block.size // block.page_size)
    length = -(-pages // 64) * 8
    file.seek(block.mapped.bitmap)
    raw = file.read(length)
    if len(raw) != length:
        raise StreamError(block.mapped.bitmap, f"the bitmap of {block.name!r} is cut short")
    # The bitmap is in the byte order of the host that wrote it: little-endian, on all that we know.
    present = np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:pages])
    together = np.split(present, np.flatnonzero(np.diff(present) != 1) + 1)
    for run in together if present.size else ():
        for first in range(0, len(run), _AT_ONCE):
            some = run[first : first + _AT_ONCE]
            place = block.mapped.pages + int(some[0]) * block.page_size
            data = os.pread(file.fileno(), len(some) * block.page_size, place)
            if len(data) != len(some) * block.page_size:
                raise StreamError(place, f"page {some[0]} of {block.name!r} is cut short")
            contents = np.frombuffer(data, np.uint8).reshape(len(some), block.page_size)
            ledger.take(PageRun(block.name, some.astype(np.int64), PageForm.FULL, contents))
