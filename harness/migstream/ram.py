# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the stream that is the guest's memory: QEMU's migration/ram.c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from harness.migstream.source import Source, StreamError

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
#: Its on-disk version, of mapped-ram.
_MAPPED_VERSION: Final = 1


class PageForm(Enum):
    """How a page is in the stream."""

    FULL = "full"
    ZERO = "zero"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class StreamedPage:
    """One sending of a page; ``data`` is the page, or the delta, or nothing."""

    block: str
    page: int
    form: PageForm
    data: bytes


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


PageTaker: TypeAlias = Callable[[StreamedPage], object]


class RamReader:
    """Reads the sections of ``ram``, from the first to the last."""

    def __init__(self, form: RamFormat, take: PageTaker) -> None:
        self._form = form
        self._take = take
        self._mask = form.page_size - 1
        self._block: StreamedBlock | None = None
        self.blocks: dict[str, StreamedBlock] = {}
        #: How often the channels of multifd were waited for.
        self.flushes = 0

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

    def pages(self, source: Source) -> None:
        """One section's pages, up to its end mark."""
        page_size, mask = self._form.page_size, self._mask
        while True:
            header = source.u64("a page's header")
            flags = header & mask
            if flags == _END:
                return
            if flags == _MULTIFD_FLUSH:
                self.flushes += 1
                continue
            if flags & _HOOK:
                raise StreamError(source.offset - 8, "RDMA moves memory past the stream")
            block = self._block_of(source, flags)
            page = (header & ~mask) // page_size
            if page * page_size >= block.size:
                raise StreamError(source.offset - 8, f"page {page} is not in {block.name!r}")
            what = flags & ~_CONTINUE
            if what == _PAGE:
                self._take(StreamedPage(block.name, page, PageForm.FULL, source.take(page_size, "a page")))
            elif what == _ZERO:
                if source.u8("a page of zeros") != 0:
                    raise StreamError(source.offset - 1, "a page filled with something else than zeros")
                self._take(StreamedPage(block.name, page, PageForm.ZERO, b""))
            elif what == _XBZRLE:
                self._take(StreamedPage(block.name, page, PageForm.DELTA, _delta(source, page_size)))
            else:
                raise StreamError(source.offset, f"a page with the unknown flags {flags:#x}")

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
