# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory as a file, read without changing anything, with the standard library alone.

Holes are found with SEEK_DATA and are not read; see :mod:`harness.memory.image` for
why that matters.  ``digest_all`` makes, for every page: a keyed BLAKE2b of 128 bits,
whether it is zero, and whether it is a hole.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

PAGE = 4096
DIGEST = 16
#: Of each page's beginning so much is kept.
WORD = 8
#: Pages a read.
RUN = 256

_ZERO = bytes(PAGE)


class ImageFile:
    """One RAMBlock.  Page numbers count from the file's start."""

    def __init__(self, fd: int, size: int, name: str) -> None:
        """Takes over ``fd``; ``size`` is the block's used length."""
        self.name = name
        self.fd = fd
        actual = os.fstat(fd).st_size
        if size <= 0 or size % PAGE or actual != size:
            self.close()
            raise ValueError(f"{name}: expected a memory image of {size} bytes, found {actual}")
        self.pages = size // PAGE

    @classmethod
    def of(cls, content: bytes, name: str) -> ImageFile:
        """An image of what was read from elsewhere."""
        fd = os.memfd_create("freepage-block")
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        return cls(fd, len(content), name)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, first: int, count: int) -> bytes:
        """The bytes of some pages."""
        wanted, parts = count * PAGE, []
        while wanted:
            part = os.pread(self.fd, wanted, (first + count) * PAGE - wanted)
            if not part:
                raise ValueError(f"{self.name}: truncated")
            parts.append(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def extents(self) -> Iterator[tuple[int, int]]:
        """(first page, pages) of each stretch that is not a hole."""
        position = 0
        while position < self.pages:
            try:
                start = os.lseek(self.fd, position * PAGE, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    return
                raise
            end = os.lseek(self.fd, start, os.SEEK_HOLE)
            first = start // PAGE
            position = min(-(-end // PAGE), self.pages)
            if position <= first:
                raise ValueError(f"{self.name}: changed its size while it was read")
            yield first, position - first


@dataclass
class Taken:
    """What one image held at one moment: a digest (of zeros: zero), the first word, two flags of a byte."""

    digests: bytearray
    firsts: bytearray
    zero: bytearray
    hole: bytearray


def digest_all(image: ImageFile, key: bytes) -> Taken:
    """Look at every page once.  The guest must stand still."""
    pages = image.pages
    taken = Taken(
        bytearray(DIGEST * pages), bytearray(WORD * pages), bytearray(b"\1") * pages, bytearray(b"\1") * pages
    )
    blake2b = hashlib.blake2b
    for start, length in image.extents():
        taken.hole[start : start + length] = bytes(length)
        for first in range(start, start + length, RUN):
            count = min(RUN, start + length - first)
            data = image.read(first, count)
            for row in range(count):
                content = data[row * PAGE : row * PAGE + PAGE]
                if content != _ZERO:
                    number = first + row
                    taken.zero[number] = 0
                    taken.firsts[number * WORD : number * WORD + WORD] = content[:WORD]
                    taken.digests[number * DIGEST : number * DIGEST + DIGEST] = blake2b(
                        content, digest_size=DIGEST, key=key
                    ).digest()
    return taken


def page_digest(content: bytes, key: bytes) -> bytes:
    """The digest of one page that is not zero."""
    return hashlib.blake2b(content, digest_size=DIGEST, key=key).digest()


def same(a: Taken, b: Taken) -> bytearray:
    """For each page, whether it held the same at both moments."""
    pages = len(a.zero)
    flags = bytearray(b"\1") * pages
    for first in range(0, pages, RUN):
        end = min(first + RUN, pages)
        if a.digests[first * DIGEST : end * DIGEST] != b.digests[first * DIGEST : end * DIGEST]:
            for page in range(first, end):
                here = slice(page * DIGEST, page * DIGEST + DIGEST)
                flags[page] = a.digests[here] == b.digests[here]
    return flags


def chunk_digests(taken: Taken, wanted: bytes, chunk: int, key: bytes) -> bytes:
    """One digest for each ``chunk`` pages, over the digests of those pages that are wanted."""
    found = bytearray()
    for first in range(0, len(wanted), chunk):
        digest = hashlib.blake2b(digest_size=DIGEST, key=key)
        flags = wanted[first : first + chunk]
        if flags.count(1) == len(flags):
            digest.update(taken.digests[first * DIGEST : (first + len(flags)) * DIGEST])
        else:
            for page in (first + row for row, flag in enumerate(flags) if flag):
                digest.update(taken.digests[page * DIGEST : (page + 1) * DIGEST])
        found += digest.digest()
    return bytes(found)
