# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's disk for one run: a blank one, or a copy in which what is a hole stays a hole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

#: Bytes; a run of zeros that is shorter than this is written.
_PIECE: Final = 1 << 18


def make_blank(target: Path, size: int) -> None:
    """Make a file of ``size`` bytes that is a hole."""
    with target.open("xb") as writing:
        os.truncate(writing.fileno(), size)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes; the kernel may share what is the same (reflink)."""
    with source.open("rb") as reading, target.open("xb") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.truncate(writing.fileno(), size)
        for begin, end in _data(reading.fileno(), size):
            at = begin
            while at < end:
                done = _copy(reading.fileno(), writing.fileno(), end - at, at)
                if done == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                at += done


def _copy(reading: int, writing: int, most: int, at: int) -> int:
    """Copy a part; how much."""
    try:
        return os.copy_file_range(reading, writing, most, at, at)
    except OSError as error:
        # The kernel does it within one file system, and not within two: so in a nested machine.
        if error.errno != errno.EXDEV:
            raise
    piece = os.pread(reading, min(most, _PIECE), at)
    # What comes over 9p has no holes: what could be one stays one.
    if piece != bytes(len(piece)):
        left, place = memoryview(piece), at
        while left:
            done = os.pwrite(writing, left, place)
            left, place = left[done:], place + done
    return len(piece)


def _data(descriptor: int, size: int) -> list[tuple[int, int]]:
    parts, at = [], 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                break
            raise
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        parts.append((begin, at))
    return parts
