# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's RAM as the file that holds it, read without changing anything.

    with RamImage.open(path, size) as image:
        for first_page, words in image.blocks():   # data only; (pages, 512) uint64
            ...

A hole of the file is memory that nobody has touched: it reads as zeros.  Holes
are found with SEEK_DATA and SEEK_HOLE and are not read.  That is more than
speed: reading a hole through a *mapping* of a tmpfs file allocates the page, so
an oracle that maps the destination would, by looking, use up the memory that
skipping saved, and change what the next look finds.  preadv() does not.

The guest must be stopped while its image is read.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from harness.errors import MachineryError
from harness.units import PAGE_SIZE

WORDS = PAGE_SIZE // 8
#: Pages a read: a buffer of 1 MiB stays in the second level cache while it is looked at.
BLOCK_PAGES = 256

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


def zero_rows(words: Words) -> Flags:
    """Which pages of a block hold nothing but zeros."""
    # Nearly every page that is not zero shows it in one of eight samples.
    zero: Flags = np.logical_not(words[:, :: WORDS // 8].any(axis=1))
    candidates = np.flatnonzero(zero)
    if candidates.size:
        zero[candidates] = ~words[candidates].any(axis=1)
    return zero


def block_runs(wanted: Flags) -> Iterator[tuple[int, int]]:
    """(first page, pages) of each block of BLOCK_PAGES in which any page is wanted."""
    starts = np.arange(0, len(wanted), BLOCK_PAGES)
    for first in starts[np.logical_or.reduceat(wanted, starts)].tolist():
        yield first, min(BLOCK_PAGES, len(wanted) - first)


class RamImage:
    """One RAMBlock's file, open for reading.  Page numbers count from the block's start."""

    def __init__(self, fd: int, size: int, name: str, base: int = 0, room: int | None = None) -> None:
        """Takes over ``fd``; ``size`` is the block's used length, with which the file must end.

        ``base`` is where in the file the block begins, in bytes; ``room`` what the file has for a block that
        may still grow (a ROM), in bytes; None: no more than ``size``.
        """
        self.name = name
        self._fd = fd
        self._base = base
        self._room = room if room is not None else size
        actual = self._length(fd)
        if size <= 0 or size % PAGE_SIZE or base % PAGE_SIZE or actual != self._room:
            self.close()
            raise MachineryError(
                f"{name}: expected a memory image of {size} bytes in whole pages, found {actual} bytes"
            )
        self.size = size
        self.pages = size // PAGE_SIZE
        self._buffer = mmap.mmap(-1, BLOCK_PAGES * PAGE_SIZE)

    def _length(self, fd: int) -> int:
        """How many bytes there are of the block."""
        return os.fstat(fd).st_size - self._base

    @classmethod
    def open(
        cls,
        path: Path | str,
        size: int,
        name: str | None = None,
        base: int = 0,
        room: int | None = None,
    ) -> RamImage:
        """Open a file, or ``/proc/PID/fd/N`` for one that has no name any more."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MachineryError(f"cannot open the memory image {path}: {error.strerror}") from error
        return cls(fd, size, name or str(path), base, room)

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> RamImage:
        """An image of what was read from elsewhere, such as a block that has no file."""
        fd = os.memfd_create(name)
        written = 0
        while written < len(content):
            written += os.pwrite(fd, memoryview(content)[written:], written)
        return cls(fd, len(content), name)

    def again(self) -> RamImage:
        """Another object for this file, with a buffer of its own, for another thread."""
        return RamImage(os.dup(self._fd), self.size, self.name, self._base, self._room)

    def same_file(self, other: RamImage) -> bool:
        """Whether both are one and the same memory."""
        mine, others = os.fstat(self._fd), os.fstat(other._fd)
        return (mine.st_dev, mine.st_ino) == (others.st_dev, others.st_ino)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> RamImage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def extents(self, *, coarse: bool = False) -> Iterator[tuple[int, int]]:
        """(first page, pages) of each stretch that is not a hole, in order.

        ``coarse`` takes holes smaller than a block for data: enough to know what
        is worth reading, and a bounded number of system calls where every other
        page is a hole.
        """
        position, step = 0, BLOCK_PAGES if coarse else 1
        while position < self.pages:
            try:
                start = os.lseek(self._fd, self._base + position * PAGE_SIZE, os.SEEK_DATA) - self._base
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    return
                raise MachineryError(f"{self.name}: cannot look for holes: {error.strerror}") from error
            end = os.lseek(self._fd, self._base + start, os.SEEK_HOLE) - self._base
            # Outwards to whole pages (a file system may have smaller blocks) or whole blocks.
            first = start // PAGE_SIZE // step * step
            if first >= self.pages:  # of a file with room behind the block
                return
            position = min(-(-end // (PAGE_SIZE * step)) * step, self.pages)
            if position <= first:
                raise MachineryError(f"{self.name}: changed its size while it was read")
            yield first, position - first

    def holes(self, *, coarse: bool = False) -> Flags:
        """Which pages were never touched, or were given back; see :meth:`extents`."""
        holes = np.ones(self.pages, dtype=np.bool_)
        for first, count in self.extents(coarse=coarse):
            holes[first : first + count] = False
        return holes

    def read(self, first: int, count: int) -> Words:
        """``count`` pages as rows of words.  Valid until the next read: the buffer is reused."""
        if not 0 < count <= BLOCK_PAGES or first < 0 or first + count > self.pages:
            raise ValueError(f"pages {first}+{count} of {self.pages}")
        wanted, got = count * PAGE_SIZE, 0
        view = memoryview(self._buffer)
        while got < wanted:
            step = os.preadv(self._fd, [view[got:wanted]], self._base + first * PAGE_SIZE + got)
            if step == 0:
                raise MachineryError(
                    f"{self.name}: truncated: nothing at byte {first * PAGE_SIZE + got} of {self.size}"
                )
            got += step
        return np.frombuffer(self._buffer, dtype="<u8", count=count * WORDS).reshape(count, WORDS)

    def blocks(self) -> Iterator[tuple[int, Words]]:
        """(first page, words) of each block with any data; see :meth:`read` for how long the words live.

        A block is read whole: where free pages alternate with used ones, reading
        the small holes (as zeros) is far cheaper than going around them.
        """
        for first, count in block_runs(~self.holes(coarse=True)):
            yield first, self.read(first, count)

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:  # noqa: ARG002
        """Every block with data: each may hold these bytes, and the caller looks at each in any case."""
        return self.blocks()

    def page(self, number: int) -> bytes:
        """A copy of one page."""
        return self.read(number, 1).tobytes()
