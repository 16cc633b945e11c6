# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of guest memory without its holes, and back: what was memory is memory again, and a hole a hole.

    keep_memory(ram, kept)             # kept: the data, and in kept.extents where each piece of it belongs
    restore_memory(kept, ram)           # into a file of that length that holds nothing yet

A page of zeros that somebody has touched is data: it is in memory, and it is that again.  (QEMU's own
loading of a page of zeros reads it by a mapping, which makes memory of each hole.)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness.errors import MachineryError

#: Bytes at a time.
_CHUNK: Final = 4 << 20


def extents_of(kept: Path) -> Path:
    """The file beside a packed one that says where its pieces belong."""
    return kept.with_name(f"{kept.name}.extents")


def keep_memory(ram: Path, kept: Path) -> None:
    """Write what a file of memory holds.  Nobody may write to it meanwhile; ``kept`` must not exist."""
    with ExitStack() as stack:
        source = _open(ram, os.O_RDONLY, stack)
        target = _open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stack)
        rows = []
        for begin, end in _data(source):
            rows.append(f"{begin} {end - begin}\n")
            _copy(source, begin, target, None, end - begin, kept)
        size = os.fstat(source).st_size
    extents_of(kept).write_text(f"{size}\n" + "".join(rows), encoding="ascii")


def restore_memory(kept: Path, ram: Path) -> None:
    """Put it back.  Raises :class:`MachineryError` unless ``ram`` has its length, and nothing in it."""
    size, *rows = extents_of(kept).read_text(encoding="ascii").splitlines()
    with ExitStack() as stack:
        source = _open(kept, os.O_RDONLY, stack)
        target = _open(ram, os.O_RDWR, stack)
        about = os.fstat(target)
        if about.st_size != int(size):
            raise MachineryError(f"{ram} has {about.st_size} bytes, and what was kept of it {size}")
        if next(_data(target), None) is not None:
            raise MachineryError(f"{ram} holds something already")
        at = 0
        for row in rows:
            begin, length = map(int, row.split())
            _copy(source, at, target, begin, length, kept)
            at += length
        if os.fstat(source).st_size != at:
            raise MachineryError(f"{kept} is not as long as its pieces are together")


def _open(path: Path, flags: int, stack: ExitStack) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _data(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where there is data: begin and end, in bytes."""
    at = 0
    while True:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, at


def _copy(source: int, begin: int, target: int, place: int | None, length: int, name: Path) -> None:
    """``place``: where it goes; None: behind what was written last."""
    while length:
        piece = os.pread(source, min(length, _CHUNK), begin)
        if not piece:
            raise MachineryError(f"{name}: memory that was there is gone")
        view = memoryview(piece)
        while view:
            done = os.write(target, view) if place is None else os.pwrite(target, view, place)
            view = view[done:]
            place = None if place is None else place + done
        begin += len(piece)
        length -= len(piece)
