# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap on the migration's connections: carries them on, and writes down what the source says.

Run by path in the source's namespaces, with a listening socket as inherited
descriptor::

    python -I -S tap.py LISTENING HOST PORT FOLDER

Each connection is carried on to HOST:PORT, both ways.  What comes from the source is
in FOLDER/N.stream, N counting from 1: it is there before the destination gets it.
FOLDER/N.times says how many bytes had come when.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

#: What the files with the times are made of: seconds by the clock of the machine, and bytes.
TIMES: Final = [("at", "<f8"), ("bytes", "<u8")]
TIMES_ENDING: Final = ".times"
_TIME: Final = struct.Struct("<dQ")
#: Seconds between two of them.
_OFTEN: Final = 0.01

_CHUNK: Final = 1 << 20
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class StreamTap:
    """Carries connections, each by two threads."""

    def __init__(self, host: str, port: int, folder: Path) -> None:
        self._address = (host, port)
        self._folder = folder
        self._count = 0

    def serve(self, listening: socket.socket) -> None:
        """Accept connections, for ever."""
        while True:
            connection, _ = listening.accept()
            self._count += 1
            threading.Thread(target=self._carry, args=(connection, self._count), daemon=True).start()

    def _carry(self, near: socket.socket, number: int) -> None:
        name = self._folder / f"{number}.stream"
        with (
            near,
            name.open("wb", buffering=0) as log,
            name.with_suffix(TIMES_ENDING).open("wb", buffering=0) as times,
            contextlib.suppress(OSError),
            socket.create_connection(self._address) as far,
        ):
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _write_down(near, far, log.fileno(), times)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Carry one direction to its end, which the other side is told of."""
    buffer = memoryview(bytearray(_CHUNK))
    with contextlib.suppress(OSError):
        while got := source.recv_into(buffer):
            sink.sendall(buffer[:got])
    _say_end(source, sink)


def _write_down(source: socket.socket, sink: socket.socket, log: int, times: IO[bytes]) -> None:
    """The same, and all of it to a file, without a copy of what passes through this process."""
    total, noted = 0, 0.0
    with _pipe() as (out, into), _pipe() as (second_out, second_into), contextlib.suppress(OSError):
        while got := os.splice(source.fileno(), into, _CHUNK):
            total, now = total + got, time.time()
            if now - noted >= _OFTEN:
                times.write(_TIME.pack(now, total))
                noted = now
            twice = 0
            while twice < got:
                twice += (same := _tee(out, second_into, got - twice))
                _drain(second_out, log, same)
                _drain(out, sink.fileno(), same)
    _say_end(source, sink)


def _drain(pipe: int, into: int, count: int) -> None:
    while count:
        count -= os.splice(pipe, into, count)


def _tee(pipe: int, into: int, count: int) -> int:
    """See tee(2): what is in ``pipe`` stays there."""
    same: int = _LIBC.tee(pipe, into, ctypes.c_size_t(count), 0)
    if same <= 0:
        raise OSError(ctypes.get_errno(), "tee")
    return same


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        with contextlib.suppress(OSError):  # many users' pipes may have taken what one user may have
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, _CHUNK)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _say_end(source: socket.socket, sink: socket.socket) -> None:
    # One that is reset has nothing more to say, either way.
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


def main(arguments: list[str]) -> None:
    """Take the listening socket over and carry."""
    listening = socket.socket(fileno=int(arguments[0]))
    StreamTap(arguments[1], int(arguments[2]), Path(arguments[3])).serve(listening)


if __name__ == "__main__":
    main(sys.argv[1:])
