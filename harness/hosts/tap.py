# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap on the migration's connections: carries them on, and writes down what the source says.

Run by path in the source's namespaces, with a listening socket as inherited
descriptor::

    python -I -S tap.py LISTENING HOST PORT FOLDER

Each connection is carried on to HOST:PORT, both ways.  What comes from the source is
in FOLDER/N.stream, N counting from 1: it is there before the destination gets it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path
from typing import IO, Final

_CHUNK: Final = 1 << 20


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
            contextlib.suppress(OSError),
            socket.create_connection(self._address) as far,
        ):
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_copy, args=(far, near, None), daemon=True)
            back.start()
            _copy(near, far, log)
            back.join()


def _copy(source: socket.socket, sink: socket.socket, log: IO[bytes] | None) -> None:
    """Carry one direction to its end, which the other side is told of."""
    buffer = memoryview(bytearray(_CHUNK))
    with contextlib.suppress(OSError):
        while got := source.recv_into(buffer):
            piece = buffer[:got]
            if log is not None:
                log.write(piece)
            sink.sendall(piece)
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
