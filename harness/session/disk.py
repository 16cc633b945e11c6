# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of a guest's disk for one run: what is a hole stays a hole."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes; the kernel may share what is the same (reflink)."""
    with source.open("rb") as reading, target.open("xb") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.truncate(writing.fileno(), size)
        for begin, end in _data(reading.fileno(), size):
            at = begin
            while at < end:
                done = os.copy_file_range(reading.fileno(), writing.fileno(), end - at, at, at)
                if done == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                at += done


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
