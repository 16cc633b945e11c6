# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of the guest's NIC: somebody who sends back what comes."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class Mirror:
    """Context manager: sends datagrams back to whoever sent them; it gives its address and port.

    ``address``: the lab's end of the NIC's segment.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._reflect, name="mirror", daemon=True)

    def __enter__(self) -> tuple[str, int]:
        self._socket.bind((self._address, 0))
        self._thread.start()
        address, port = self._socket.getsockname()
        return address, port

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An empty datagram of our own ends the thread.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _reflect(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(2048)
            if not data:
                return
            self._socket.sendto(data, sender)
