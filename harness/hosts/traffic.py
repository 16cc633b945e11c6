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
from dataclasses import dataclass
from types import TracebackType
from typing import Final

#: "discard"; the guest has nothing there.
_PORT: Final = 9


@dataclass(frozen=True, slots=True)
class TrafficRate:
    """So many datagrams at once, each of so many bytes; and the pause after them, in seconds."""

    burst: int
    size: int
    pause: float


#: Some 6000 whole frames a second, a third of a slow CPU.
DENSE: Final = TrafficRate(64, 1400, 0.01)
#: Twenty a second: of 256 buffers the guest gave each away twelve seconds before it is written to, and
#: a migration that takes less has sent most of them before.  And so small that its driver copies them,
#: and writes nothing to those pages itself (GOOD_COPY_LEN in the kernel's drivers/net/virtio_net.c).
SPARSE: Final = TrafficRate(1, 64, 0.05)


class Traffic:
    """Context manager: while it is entered, a thread sends datagrams to ``address``."""

    def __init__(self, address: str, rate: TrafficRate = DENSE) -> None:
        self._address = (address, _PORT)
        self._rate = rate
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
            content = os.urandom(self._rate.size)
            while not self._over.wait(self._rate.pause):
                for _ in range(self._rate.burst):
                    # A full queue, or a guest that says that nobody listens.
                    with contextlib.suppress(OSError):
                        sending.sendto(content, self._address)
