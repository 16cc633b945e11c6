# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's RAM that is in no file: read out of its QEMU, which has to be stopped, and to live.

    image = LiveImage(pid, address, size, "pc.ram")
    image.blocks()                 # as of any RamImage
    image.keep()                   # before the QEMU ends: from here on it is a copy

Memory that is private to QEMU (anonymous, or a private mapping of a file) can be mapped by nobody
else.  ``/proc/PID/mem`` has all of it; ``/proc/PID/pagemap`` says which pages QEMU has ever touched,
so that looking at the others does not fill the machine's memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import MachineryError
from harness.memory.image import BLOCK_PAGES, WORDS, Flags, RamImage, Words
from harness.units import PAGE_SIZE

#: Of a page's 64 bits: it is in memory, or swapped out.  See Documentation/admin-guide/mm/pagemap.rst.
_PRESENT: Final = np.uint64(1 << 63 | 1 << 62)
_ENTRY: Final = 8


class LiveImage(RamImage):
    """One RAMBlock in the address space of a QEMU of this machine."""

    def __init__(self, pid: int, address: int, size: int, name: str) -> None:
        """``address``: where QEMU has the block; ``size``: its used length, in bytes."""
        self._pid = pid
        self._pagemap = -1
        self._touched: Flags | None = None
        self._empty = _begins_empty(pid, address)
        # The mapping may be longer; shorter it may not be.
        self._wanted = size
        super().__init__(_open(pid, "mem"), size, name, address)
        self._pagemap = _open(pid, "pagemap")

    def _length(self, fd: int) -> int:  # noqa: ARG002 - a process has no length
        return min(_mapped(self._pid, self._base), self._wanted)

    @property
    def live(self) -> bool:
        """Whether it still is the QEMU's own memory, and no copy."""
        return self._pagemap >= 0

    def again(self) -> RamImage:
        """Another object for this memory, or for its copy."""
        if self.live:
            return LiveImage(self._pid, self._base, self.size, self.name)
        return super().again()  # without what is known of its holes

    def same_file(self, other: RamImage) -> bool:  # noqa: ARG002
        """No: it is private."""
        return False

    def keep(self) -> None:
        """Copy all of it: the QEMU, which stands still, is about to end.  May be called twice."""
        if not self.live:
            return
        copy = os.memfd_create(self.name.replace("/", "-"), os.MFD_CLOEXEC)
        try:
            os.ftruncate(copy, self.size)
            touched = ~self.holes()
            for first, words in self.blocks():
                content = words.tobytes()
                if os.pwrite(copy, content, first * PAGE_SIZE) != len(content):
                    raise MachineryError(f"{self.name}: there is no room for a copy of it")
        except BaseException:
            os.close(copy)
            raise
        self.close()
        # The copy's own holes say less: the kernel may give it several pages at once.
        self._fd, self._base, self._touched = copy, 0, touched

    def close(self) -> None:
        """Close what is open; may be called twice."""
        super().close()
        if self._pagemap >= 0:
            os.close(self._pagemap)
            self._pagemap = -1

    def extents(self, *, coarse: bool = False) -> Iterator[tuple[int, int]]:
        """(first page, pages) of each stretch that QEMU has touched."""
        touched = self._touched if self._touched is not None else self._look(0, self.pages)
        if coarse:
            starts = np.arange(0, self.pages, BLOCK_PAGES)
            touched = np.repeat(np.logical_or.reduceat(touched, starts), BLOCK_PAGES)[: self.pages]
        yield from _runs(touched)

    def read(self, first: int, count: int) -> Words:
        """Some pages as rows of words; of those that QEMU never touched nothing is read.

        To read one would map it, so that the next look took it for touched.
        """
        if not self.live:
            return super().read(first, count)
        if not 0 < count <= BLOCK_PAGES or first < 0 or first + count > self.pages:
            raise ValueError(f"pages {first}+{count} of {self.pages}")
        view = memoryview(self._buffer)
        view[: count * PAGE_SIZE] = bytes(count * PAGE_SIZE)
        for start, pages in _runs(self._look(first, count)):
            at, end = start * PAGE_SIZE, (start + pages) * PAGE_SIZE
            while at < end:
                step = os.preadv(self._fd, [view[at:end]], self._base + first * PAGE_SIZE + at)
                if step == 0:
                    raise MachineryError(f"{self.name}: its QEMU has ended while it was read")
                at += step
        return np.frombuffer(self._buffer, dtype="<u8", count=count * WORDS).reshape(count, WORDS)

    def _look(self, first: int, count: int) -> Flags:
        if not self._empty:
            return np.ones(count, dtype=np.bool_)
        data = os.pread(self._pagemap, count * _ENTRY, (self._base // PAGE_SIZE + first) * _ENTRY)
        touched: Flags = (np.frombuffer(data, dtype="<u8") & _PRESENT) != 0
        if len(touched) != count:
            raise MachineryError(f"{self.name}: its QEMU does not tell which of its pages it has touched")
        return touched


def _runs(wanted: Flags) -> Iterator[tuple[int, int]]:
    """(first page, pages) of each stretch that is wanted."""
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    for first, end in edges.reshape(-1, 2).tolist():
        yield first, end - first


def _open(pid: int, what: str) -> int:
    path = Path(f"/proc/{pid}/{what}")
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineryError(f"cannot read a QEMU's memory: {path}: {error.strerror}") from error


def _begins_empty(pid: int, address: int) -> bool:
    """Whether a page that nobody has touched holds zeros: it does not where a file with content is mapped."""
    for start, stop, line in _mappings(pid):
        if start <= address < stop:
            if line.split()[4] == "0":
                return True
            # A file of which QEMU has a copy of its own; the file stays as it was.
            try:
                return (Path(f"/proc/{pid}/map_files") / line.split()[0]).stat().st_blocks == 0
            except OSError:
                return False
    return False


def _mapped(pid: int, address: int) -> int:
    """How many bytes are mapped from an address on, in one stretch."""
    end = address
    for start, stop, _ in _mappings(pid):
        if start <= end < stop:
            end = stop
    return end - address


def _mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    path = Path(f"/proc/{pid}/maps")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MachineryError(f"cannot read a QEMU's memory: {path}: {error.strerror}") from error
    for line in text.splitlines():
        start, stop = line.split(maxsplit=1)[0].split("-")
        yield int(start, 16), int(stop, 16), line
