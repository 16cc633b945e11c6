# SPDX-License-Identifier: GPL-2.0-or-later
"""The sockets behind a guest's serial ports, all read by one thread.

Each port is a socket of *ours* that QEMU connects to, so the guest's first byte
cannot be missed.  A migrated guest has one connection a host.

    with PortReader("console") as ports:
        ports.listen(path, lambda connection: ports.watch(connection, read))
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class PortReader:
    """Context manager: while it is entered, a thread calls back for what the sockets have."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, then close every socket that is left."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)

    def listen(self, path: Path, connected: Callable[[socket.socket], None]) -> None:
        """Listen at ``path`` for one QEMU, not yet started; ``connected`` gets its connection, in the thread.

        Raises :class:`OSError` if there can be no socket at ``path``.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            listener.listen(1)
        except BaseException:
            listener.close()
            raise

        def accept() -> None:
            connection, _ = listener.accept()
            self.forget(listener)
            connected(connection)

        # epoll notices a registration from another thread while it waits.
        self.watch(listener, accept)

    def watch(self, connection: socket.socket, readable: Callable[[], None]) -> None:
        """Have the thread call ``readable`` whenever ``connection`` has something, or has ended."""
        self._selector.register(connection, selectors.EVENT_READ, readable)

    def forget(self, connection: socket.socket) -> None:
        """Close ``connection``, which is watched no more."""
        self._selector.unregister(connection)
        connection.close()

    def _follow(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                call: Callable[[], None] = key.data
                call()


class PortOwner:
    """Base of what is told by a thread of its own what its ports have; a context manager, as that is."""

    def __init__(self, name: str) -> None:
        self._ports = PortReader(name)

    def __enter__(self) -> Self:
        self._ports.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ports.__exit__(kind, value, trace)
        self._ended()

    def _ended(self) -> None:
        """Close what else there is: the thread has ended."""
