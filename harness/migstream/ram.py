# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the stream that is the guest's memory: QEMU's migration/ram.c."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from harness.migstream.source import Source, StreamError, UnknownFormError

#: RAM_SAVE_FLAG_*: low bits of a page's address.
_ZERO: Final = 0x02
_MEM_SIZE: Final = 0x04
_PAGE: Final = 0x08
_END: Final = 0x10
_CONTINUE: Final = 0x20
_XBZRLE: Final = 0x40
_HOOK: Final = 0x80
_MULTIFD_FLUSH: Final = 0x200
_ENCODING_XBZRLE: Final = 1

#: No machine has more, nor larger ones.
MOST_BLOCKS: Final = 4096
LARGEST_BLOCK: Final = 1 << 43
#: So many records are looked at first, and each time so many times more.
_FEW: Final = 8
#: Its on-disk version, of mapped-ram.
_MAPPED_VERSION: Final = 1


class PageForm(Enum):
    """How a page is in the stream; the numbers are those of harness/explain/sendings.py."""

    ZERO = 0
    FULL = 1
    DELTA = 2


StreamedPages = npt.NDArray[np.int64]
PageContents = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class PageRun:
    """Sendings of pages, one after the other, that have the same form.

    ``contents`` has a row for each whole page; ``delta`` is that of the only page.
    """

    block: str
    pages: StreamedPages
    form: PageForm
    contents: PageContents | None = None
    delta: bytes = b""


@dataclass(frozen=True, slots=True)
class MappedBlock:
    """Where mapped-ram keeps a block in its file: offsets in bytes."""

    bitmap: int
    pages: int


@dataclass(frozen=True, slots=True)
class StreamedBlock:
    """A RAMBlock as the stream announces it; sizes in bytes."""

    name: str
    size: int
    page_size: int
    #: Its address, where shared memory is left out (x-ignore-shared).
    address: int | None = None
    mapped: MappedBlock | None = None


@dataclass(frozen=True, slots=True)
class RamFormat:
    """What decides how the section of memory looks."""

    page_size: int = 4096
    ignore_shared: bool = False
    mapped_ram: bool = False


class PageSink(Protocol):
    """What is told of the pages as they come."""

    def take(self, run: PageRun) -> None:
        """Pages have come."""

    def flushed(self) -> None:
        """The destination waits here for what the channels of multifd bring (RAM_SAVE_FLAG_MULTIFD_FLUSH)."""

    def section_ended(self) -> None:
        """A section of memory ends; where no flush is ever asked for, it waits here."""

    def discarded(self, block: str, first: int, count: int) -> None:
        """Pages that came before are thrown away: postcopy will bring them again."""


class RamReader:
    """Reads the sections of ``ram``, from the first to the last."""

    def __init__(self, form: RamFormat, sink: PageSink) -> None:
        self._form = form
        self._sink = sink
        self._mask = form.page_size - 1
        self._block: StreamedBlock | None = None
        self.blocks: dict[str, StreamedBlock] = {}
        #: How often the channels of multifd were waited for.
        self.flushes = 0
        self._records: dict[int, np.dtype[Any]] = {
            _PAGE: np.dtype([("header", ">u8"), ("content", "u1", (form.page_size,))]),
            _ZERO: np.dtype([("header", ">u8"), ("content", "u1")]),
        }

    def setup(self, source: Source) -> None:
        """What the first section says: the blocks."""
        header = source.u64("the size of memory")
        if header & self._mask != _MEM_SIZE:
            raise StreamError(source.offset - 8, f"expected the size of memory, found {header:#x}")
        left = header & ~self._mask
        while left > 0:
            block = self._announced(source)
            if block.name in self.blocks:
                raise StreamError(source.offset, f"the block {block.name!r} comes twice")
            if len(self.blocks) == MOST_BLOCKS:
                raise StreamError(source.offset, f"more than {MOST_BLOCKS} blocks")
            self.blocks[block.name] = block
            left -= block.size
        if left:
            raise StreamError(source.offset, "the blocks are larger than the memory")
        self.pages(source)

    def _announced(self, source: Source) -> StreamedBlock:
        name = source.name("a block's name")
        size = source.u64("a block's size")
        if not 0 < size <= LARGEST_BLOCK:
            raise StreamError(source.offset - 8, f"the block {name!r} has {size} bytes")
        address = source.u64("a block's address") if self._form.ignore_shared else None
        mapped = self._mapped(source, size) if self._form.mapped_ram else None
        return StreamedBlock(name, size, self._form.page_size, address, mapped)

    def _mapped(self, source: Source, block_size: int) -> MappedBlock:
        version = source.u32("mapped-ram's header")
        if version != _MAPPED_VERSION:
            raise StreamError(source.offset - 4, f"mapped-ram of version {version}, which nobody knows")
        size = source.u64("mapped-ram's page size")
        if size != self._form.page_size:
            raise StreamError(source.offset - 8, f"mapped-ram with pages of {size} bytes")
        mapped = MappedBlock(source.u64("mapped-ram's bitmap"), source.u64("mapped-ram's pages"))
        # The bitmap and the pages are between this and the next block's name.
        if mapped.pages < source.offset:
            raise StreamError(source.offset, "mapped-ram's pages begin before their own header")
        source.skip_to(mapped.pages + block_size, "what follows mapped-ram's pages")
        return mapped

    def pages(self, source: Source, *, marked: bool = True) -> None:
        """One section's pages, up to its end mark; without ``marked`` the stream may end before a page."""
        page_size, mask = self._form.page_size, self._mask
        while marked or source.peek(1):
            header = source.u64("a page's header")
            flags = header & mask
            if flags == _END:
                self._sink.section_ended()
                return
            if flags == _MULTIFD_FLUSH:
                self.flushes += 1
                self._sink.flushed()
                continue
            if flags & _HOOK:
                raise UnknownFormError(source.offset - 8, "RDMA moves memory past the stream")
            block = self._block_of(source, flags)
            page = (header & ~mask) // page_size
            if page * page_size >= block.size:
                raise StreamError(source.offset - 8, f"page {page} is not in {block.name!r}")
            what = flags & ~_CONTINUE
            pages = np.array([page], np.int64)
            if what == _PAGE:
                content = np.frombuffer(source.take(page_size, "a page"), np.uint8)
                self._sink.take(PageRun(block.name, pages, PageForm.FULL, content.reshape(1, page_size)))
            elif what == _ZERO:
                if source.u8("a page of zeros") != 0:
                    raise StreamError(source.offset - 1, "a page filled with something else than zeros")
                self._sink.take(PageRun(block.name, pages, PageForm.ZERO))
            elif what == _XBZRLE:
                changed = _delta(source, page_size)
                self._sink.take(PageRun(block.name, pages, PageForm.DELTA, None, changed))
                continue
            else:
                raise StreamError(source.offset, f"a page with the unknown flags {flags:#x}")
            self._more_like_it(source, block, what)

    def _more_like_it(self, source: Source, block: StreamedBlock, what: int) -> None:
        """Pages of the same block and form are often many: those that are buffered, at once."""
        for found in self._alike(source, block, what):
            pages = ((found["header"] & ~np.uint64(self._mask)) // self._form.page_size).astype(np.int64)
            if what == _PAGE:
                self._sink.take(PageRun(block.name, pages, PageForm.FULL, found["content"]))
            else:
                self._sink.take(PageRun(block.name, pages, PageForm.ZERO))
            source.pass_over(len(found) * found.dtype.itemsize)

    def _alike(self, source: Source, block: StreamedBlock, what: int) -> Iterator[npt.NDArray[Any]]:
        """Records that are sound; what is none ends it, and is looked at by itself."""
        record, some = self._records[what], _FEW
        while True:
            buffer, at = source.window()
            count = min((len(buffer) - at) // record.itemsize, some)
            if not count:
                return
            found = np.frombuffer(buffer, record, count, at)
            header = found["header"].astype(np.uint64)
            good = (header & np.uint64(self._mask) == what | _CONTINUE) & (
                header & ~np.uint64(self._mask) < block.size
            )
            if what == _ZERO:
                good &= found["content"] == 0
            sound = count if good.all() else int(good.argmin())
            if sound:
                yield found[:sound]
            if sound < count:
                return
            some *= _FEW

    def _block_of(self, source: Source, flags: int) -> StreamedBlock:
        if not flags & _CONTINUE:
            name = source.name("a page's block")
            if name not in self.blocks:
                raise StreamError(source.offset - len(name), f"a page of {name!r}, which was not announced")
            self._block = self.blocks[name]
        if self._block is None:
            raise StreamError(source.offset, "a page of the block before, but it is the first")
        return self._block


def _delta(source: Source, page_size: int) -> bytes:
    if source.u8("a delta's encoding") != _ENCODING_XBZRLE:
        raise StreamError(source.offset - 1, "a delta of an unknown encoding")
    length = source.u16("a delta's length")
    if length > page_size:
        raise StreamError(source.offset - 2, f"a delta of {length} bytes, longer than its page")
    return source.take(length, "a delta")
