# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream amounts to: which page was sent how often and how, and what a destination then holds."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from harness.migstream.ram import PageForm, StreamedBlock, StreamedPage
from harness.migstream.reader import StreamContents, StreamReader
from harness.migstream.source import StreamError
from harness.migstream.xbzrle import apply_delta

#: Memory of all blocks together that is put together; beyond it pages are only counted.
MOST_MEMORY: Final = 64 << 30


@dataclass(slots=True)
class BlockAccount:
    """One RAMBlock: sendings of pages by form, and how often each page came (255: that often, or more)."""

    name: str
    size: int
    page_size: int
    full: int = 0
    zero: int = 0
    delta: int = 0
    delta_bytes: int = 0
    times: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def pages(self) -> int:
        """How many it has."""
        return -(-self.size // self.page_size)

    @property
    def sent_pages(self) -> int:
        """Pages that came at all."""
        return int(np.count_nonzero(self.times))

    @property
    def sent_again(self) -> int:
        """Pages that came more than once."""
        return int(np.count_nonzero(self.times > 1))


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

    def close(self) -> None:
        """Give the memory back."""
        for one in self.memory.values():
            one.close()
        for file in self.files.values():
            os.close(file)


class _Ledger:
    """Takes the pages as they come."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.blocks: dict[str, BlockAccount] = {}
        self.memory: dict[str, mmap.mmap] = {}
        self.files: dict[str, int] = {}
        self._reader: StreamReader | None = None

    def belongs_to(self, reader: StreamReader) -> None:
        self._reader = reader

    def block(self, name: str) -> BlockAccount:
        known = self.blocks.get(name)
        return known if known is not None else self.announce(self._announced(name))

    def _announced(self, name: str) -> StreamedBlock:
        assert self._reader is not None
        assert self._reader.ram is not None
        return self._reader.ram.blocks[name]

    def announce(self, block: StreamedBlock) -> BlockAccount:
        account = BlockAccount(block.name, block.size, block.page_size)
        account.times = np.zeros(account.pages, np.uint8)
        if self._keep and sum(one.size for one in self.blocks.values()) + block.size <= MOST_MEMORY:
            # Zeros until something is written: memory that no page comes to costs nothing.
            size = account.pages * block.page_size
            file = self.files[block.name] = os.memfd_create("stream", os.MFD_CLOEXEC)
            os.ftruncate(file, size)
            self.memory[block.name] = mmap.mmap(file, size)
        elif self._keep:
            raise StreamError(0, f"the stream is of more than {MOST_MEMORY >> 30} GiB of memory")
        self.blocks[block.name] = account
        return account

    def take(self, page: StreamedPage) -> None:
        account = self.block(page.block)
        if page.form is PageForm.FULL:
            account.full += 1
        elif page.form is PageForm.ZERO:
            account.zero += 1
        else:
            account.delta += 1
            account.delta_bytes += len(page.data)
        if account.times[page.page] < 255:
            account.times[page.page] += 1
        if self._keep:
            self._put(account, page)

    def _put(self, account: BlockAccount, page: StreamedPage) -> None:
        memory, begin = self.memory[account.name], page.page * account.page_size
        end = begin + account.page_size
        if page.form is PageForm.FULL:
            memory[begin:end] = page.data
        elif page.form is PageForm.ZERO:
            # As QEMU does: a page that is zero already is not written to.
            if account.times[page.page] > 1:
                memory[begin:end] = bytes(account.page_size)
        else:
            try:
                memory[begin:end] = apply_delta(memory[begin:end], page.data)
            except ValueError as error:
                raise StreamError(0, f"a delta of page {page.page} of {account.name!r}: {error}") from error


def read_stream(file: BinaryIO, *, keep: bool = True) -> StreamedGuest:
    """Read a stream to its end.

    ``keep``: put memory together, which takes as much as the guest has in use.  A
    mapped-ram file has to be seekable.  Raises :class:`StreamError`.
    """
    ledger = _Ledger(keep=keep)
    reader = StreamReader(ledger.take)
    ledger.belongs_to(reader)
    contents = reader.read(file)
    for block in reader.ram.blocks.values() if reader.ram is not None else ():
        if block.name not in ledger.blocks:
            ledger.announce(block)
        if block.mapped is not None:
            _take_mapped(file, block, ledger)
    return StreamedGuest(contents, ledger.blocks, ledger.memory, ledger.files)


def _take_mapped(file: BinaryIO, block: StreamedBlock, ledger: _Ledger) -> None:
    """The pages of mapped-ram are at fixed places; a bitmap says which of them count."""
    assert block.mapped is not None
    pages = -(-block.size // block.page_size)
    length = -(-pages // 64) * 8
    file.seek(block.mapped.bitmap)
    raw = file.read(length)
    if len(raw) != length:
        raise StreamError(block.mapped.bitmap, f"the bitmap of {block.name!r} is cut short")
    # The bitmap is in the byte order of the host that wrote it: little-endian, on all that we know.
    present = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:pages]
    for page in np.flatnonzero(present):
        place = block.mapped.pages + int(page) * block.page_size
        data = os.pread(file.fileno(), block.page_size, place)
        if len(data) != block.page_size:
            raise StreamError(place, f"page {page} of {block.name!r} is cut short")
        ledger.take(StreamedPage(block.name, int(page), PageForm.FULL, data))
