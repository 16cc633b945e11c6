# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams for the guest: memory that is written by its NIC, and not by a vCPU.

QEMU writes each of them into pages that the guest's driver has just taken from
the free lists, so a dirty log that misses device writes shows.  Nobody listens
for them in the guest, and none has to arrive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Final

#: So many at once, and the pause between, in seconds: some 6000 a second, a third of a slow CPU.
_BURST: Final = 64
_PAUSE: Final = 0.01
#: Bytes of one: a whole frame.
_SIZE: Final = 1400
#: "discard"; the guest has nothing there.
_PORT: Final = 9


class Traffic:
    """Context manager: while it is entered, a thread sends datagrams to ``address``."""

    def __init__(self, address: str) -> None:
        self._address = (address, _PORT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            content = os.urandom(_SIZE)
            while not self._over.wait(_PAUSE):
                for _ in range(_BURST):
                    # A full queue, or a guest that says that nobody listens.
                    with contextlib.suppress(OSError):
                        sending.sendto(content, self._address)
