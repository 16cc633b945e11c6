# SPDX-License-Identifier: GPL-2.0-or-later
"""A channel of multifd: packets of pages on a connection of their own (QEMU's migration/multifd.c).

Whatever a channel brings before a packet with the flag SYNC is loaded before the main
connection goes on behind its own mark, and what comes after it is loaded later.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, Final, Protocol, cast

import numpy as np

from harness.migstream.ram import PageForm, PageRun, StreamedBlock
from harness.migstream.source import Readable, Source, StreamError, UnknownFormError

CHANNEL_MAGIC: Final = 0x11223344
_VERSION: Final = 1

#: Of the first packet: UUID, channel, and what is not used.
_GREETING: Final = 16 + 1 + 7 + 4 * 8

_SYNC: Final = 1
_COMPRESSION: Final = 0x1F << 1
_PLAIN: Final = 0
_ZLIB: Final = 1 << 1
_ZSTD: Final = 2 << 1
_OTHERS: Final = {4 << 1: "QPL", 8 << 1: "UADK", 16 << 1: "QATzip"}
_DEVICE_STATE: Final = 32 << 1

_PACKET_BYTES: Final = 512 << 10
_NAME_BYTES: Final = 256
_UNUSED: Final = 4 + 3 * 8
#: QEMU has buffers of twice a packet's pages for what is compressed.
_MOST_COMPRESSED: Final = 2 * _PACKET_BYTES
_MOST_STATE: Final = 1 << 28


class _Unpacker(Protocol):
    def unpack(self, data: bytes, size: int) -> bytes:
        """The next ``size`` bytes of what ``data`` goes on with; fewer if it has no more."""


class _Deflated:
    """zlib: one stream for a whole channel."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def unpack(self, data: bytes, size: int) -> bytes:
        try:
            found = self._stream.decompress(data, size)
            # What is left may only be the mark of a flush.
            rest = self._stream.decompress(self._stream.unconsumed_tail, 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if rest:
            raise ValueError("more than its pages")
        return found


class _Zstd:
    """zstd: likewise.  Bounded by reading, as a few bytes can stand for very many."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UnknownFormError(
                0, "pages compressed by zstd, for which 'zstandard' is not installed (extra: zstd)"
            ) from error
        self._input = io.BytesIO()
        self._error = zstandard.ZstdError
        packets = cast("IO[bytes]", self)  # of a file it only reads
        self._stream: Any = zstandard.ZstdDecompressor().stream_reader(packets, read_across_frames=False)

    def read(self, size: int = -1) -> bytes:
        """For the decompressor: the packet that is being unpacked."""
        return self._input.read(size)

    def unpack(self, data: bytes, size: int) -> bytes:
        self._input = io.BytesIO(data)
        try:
            found: bytes = self._stream.read(size)
        except self._error as error:
            raise ValueError(str(error)) from error
        return found


_UNPACKERS: Final[Mapping[int, Callable[[], _Unpacker]]] = {_ZLIB: _Deflated, _ZSTD: _Zstd}


class MultifdChannel:
    """Reads one channel's connection, from wait to wait.

    ``find`` finds a block that the main connection has announced; ``take`` gets the pages.
    """

    def __init__(
        self,
        file: Readable,
        page_size: int,
        find: Callable[[str], StreamedBlock | None],
        take: Callable[[PageRun], None],
    ) -> None:
        self._source = Source(file)
        self._page_size = page_size
        self._most = _PACKET_BYTES // page_size
        self._find = find
        self._take = take
        self._method: int | None = None
        self._unpacker: _Unpacker | None = None
        self.waits = 0
        self.packets = 0
        #: What came of pages before they were unpacked, and of devices.
        self.page_bytes = 0
        self.device_bytes = 0
        self._greet()

    @property
    def size(self) -> int:
        """Bytes read so far."""
        return self._source.offset

    def _greet(self) -> None:
        source = self._source
        magic, version = source.u32("a channel's greeting"), source.u32("a channel's greeting")
        if magic != CHANNEL_MAGIC or version != _VERSION:
            raise StreamError(0, f"no channel of multifd of version {_VERSION}: {magic:#x} {version:#x}")
        source.take(_GREETING, "a channel's greeting")

    def until_wait(self) -> bool:
        """Read up to and with the next wait; False: the connection ends before."""
        source = self._source
        while source.peek(1):
            if self._packet():
                self.waits += 1
                return True
        return False

    def _packet(self) -> bool:
        """One packet; returns whether the channel waits behind it."""
        source = self._source
        begin = source.offset
        magic, version = source.u32("a packet"), source.u32("a packet")
        if magic != CHANNEL_MAGIC or version != _VERSION:
            raise StreamError(begin, f"no packet of multifd: {magic:#x} {version:#x}")
        flags = source.u32("a packet's flags")
        self.packets += 1
        if flags & _DEVICE_STATE:
            self._device(begin)
            return False
        allocated, normal = source.u32("a packet's pages"), source.u32("a packet's pages")
        size = source.u32("a packet's size")
        source.u64("a packet's number")
        zero = source.u32("a packet's pages of zeros")
        source.take(_UNUSED, "a packet")
        name = source.take(_NAME_BYTES, "a packet's block")
        places = source.take(self._most * 8, "a packet's pages")
        if allocated > self._most or normal > allocated or zero > allocated - normal:
            raise StreamError(begin, f"a packet of {allocated} pages, {normal} whole and {zero} of zeros")
        if normal or zero:
            block = self._block(name, begin)
            pages = self._pages(places, normal + zero, block, begin)
            # The destination clears the pages of zeros first.
            if zero:
                self._take(PageRun(block.name, pages[normal:], PageForm.ZERO))
            if normal:
                data = self._unpacked(flags & _COMPRESSION, size, normal * self._page_size, begin)
                contents = np.frombuffer(data, np.uint8).reshape(normal, self._page_size)
                self._take(PageRun(block.name, pages[:normal], PageForm.FULL, contents))
        return bool(flags & _SYNC)

    def _block(self, name: bytes, begin: int) -> StreamedBlock:
        text = self._source.printable(name.partition(b"\0")[0], "a packet's block")
        block = self._find(text)
        if block is None:
            raise StreamError(begin, f"pages of {text!r}, which was not announced")
        return block

    def _pages(self, places: bytes, count: int, block: StreamedBlock, begin: int) -> Any:
        offsets = np.frombuffer(places, ">u8", count).astype(np.uint64)
        wrong = (offsets % self._page_size != 0) | (offsets >= block.size)
        if wrong.any():
            raise StreamError(begin, f"the offset {offsets[wrong.argmax()]:#x} is not in {block.name!r}")
        return (offsets // self._page_size).astype(np.int64)

    def _unpacked(self, method: int, size: int, expected: int, begin: int) -> bytes:
        if method in _OTHERS:
            raise UnknownFormError(begin, f"pages compressed by {_OTHERS[method]}")
        if method == _PLAIN:
            self.page_bytes += expected
            return self._source.take(expected, "a packet's contents")
        if method not in _UNPACKERS:
            raise StreamError(begin, f"an unknown compression: {method:#x}")
        if size > _MOST_COMPRESSED:
            raise StreamError(begin, f"a packet of {size} bytes")
        if self._unpacker is None:
            self._method, self._unpacker = method, _UNPACKERS[method]()
        elif method != self._method:
            raise StreamError(begin, "a packet compressed in another way than those before")
        self.page_bytes += size
        data = self._source.take(size, "a packet's contents")
        try:
            found = self._unpacker.unpack(data, expected)
        except ValueError as error:
            raise StreamError(begin, f"a packet that cannot be unpacked: {error}") from error
        if len(found) != expected:
            raise StreamError(begin, f"a packet of {expected} bytes, of which {len(found)} are there")
        return found

    def _device(self, begin: int) -> None:
        source = self._source
        source.take(_NAME_BYTES, "a device's packet")
        source.u32("a device's packet")
        size = source.u32("a device's packet")
        if size > _MOST_STATE:
            raise StreamError(begin, f"a device's packet of {size} bytes")
        source.take(size, "a device's packet")
        self.device_bytes += size
