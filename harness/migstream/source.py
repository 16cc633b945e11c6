# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes of a stream, one after the other, with their place: for errors that say where."""

from __future__ import annotations

import os
import struct
from typing import Final, Protocol

from harness.errors import InputError

#: Read at once.
_CHUNK: Final = 1 << 20
_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")


class StreamError(InputError):
    """The stream has another form, or ends in the middle; ``offset`` says where, in bytes."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"at byte {offset}: {what}")
        self.offset = offset


class UnknownFormError(StreamError):
    """It is a stream of QEMU's, in a form that is not read here: nothing is wrong with it."""

    def __init__(self, offset: int, form: str) -> None:
        super().__init__(offset, form)
        #: The form, in words.
        self.form = form


class Readable(Protocol):
    """A binary file, or anything else that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


class Source:
    """Reads forward through a stream; numbers are big-endian, as QEMU writes them."""

    def __init__(self, file: Readable, offset: int = 0) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0
        #: Where the buffer begins.
        self._base = offset

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._base + self._at

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes in the buffer; False: the stream ends before."""
        if len(self._buffer) - self._at >= size:
            return True
        pieces = [self._buffer[self._at :]]
        have = len(pieces[0])
        while have < size:
            piece = self._file.read(max(_CHUNK, size - have))
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self._base += self._at
        self._buffer, self._at = b"".join(pieces), 0
        return have >= size

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay; fewer at the end."""
        self._fill(size)
        return self._buffer[self._at : self._at + size]

    def window(self) -> tuple[bytes, int]:
        """What is buffered, and where in it the next byte is: to look at without a copy."""
        return self._buffer, self._at

    def pass_over(self, size: int) -> None:
        """Go on behind so many bytes of the window."""
        assert self._at + size <= len(self._buffer)
        self._at += size

    def take(self, size: int, what: str) -> bytes:
        """The next bytes; ``what`` they are, for the error if the stream ends before."""
        if not self._fill(size):
            raise StreamError(self.offset + len(self._buffer) - self._at, f"the stream ends within {what}")
        begin = self._at
        self._at += size
        return self._buffer[begin : self._at]

    def skip_to(self, offset: int, what: str) -> None:
        """Go on at ``offset``, which is not before here; holes of a file need not be read."""
        left = offset - self.offset
        if left < 0:
            raise StreamError(self.offset, f"{what} begins before this place, at {offset}")
        buffered = len(self._buffer) - self._at
        if left <= buffered:
            self._at += left
            return
        self._base, self._buffer, self._at = offset, b"", 0
        left -= buffered
        seek = getattr(self._file, "seek", None)
        if seek is not None:
            seek(left, os.SEEK_CUR)
            return
        while left:
            piece = self._file.read(min(left, _CHUNK))
            if not piece:
                raise StreamError(offset - left, f"the stream ends before {what}")
            left -= len(piece)

    def u8(self, what: str) -> int:
        """One byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Two bytes."""
        number: int = _U16.unpack(self.take(2, what))[0]
        return number

    def u32(self, what: str) -> int:
        """Four bytes."""
        number: int = _U32.unpack(self.take(4, what))[0]
        return number

    def u64(self, what: str) -> int:
        """Eight bytes."""
        number: int = _U64.unpack(self.take(8, what))[0]
        return number

    def name(self, what: str) -> str:
        """A byte with a length, and so many characters of printable ASCII."""
        length = self.u8(what)
        return self.printable(self.take(length, what), what)

    def printable(self, data: bytes, what: str) -> str:
        """``data`` as text.  Raises unless it is printable ASCII, and some."""
        if not data or not all(0x20 <= byte < 0x7F for byte in data):
            raise StreamError(self.offset - len(data), f"{what} is no name: {data[:32].hex()}")
        return data.decode("ascii")
