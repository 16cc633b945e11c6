# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries frames between a packet socket and QEMU's datagrams, where no tap may be made.

Run by path, with the two sockets as inherited descriptors:

    python -I -S relay.py PACKETS DATAGRAMS

A process and not a thread: comparing gigabytes must not hold up the guest's
network.  Like everything in a host, it ends when the lab does.
"""

from __future__ import annotations

import selectors
import socket
import sys

_LARGEST_FRAME = 65536


def carry(packets: socket.socket, datagrams: socket.socket) -> None:
    """Carry frames both ways, for ever."""
    with selectors.DefaultSelector() as selector:
        selector.register(packets, selectors.EVENT_READ, datagrams)
        selector.register(datagrams, selectors.EVENT_READ, packets)
        while True:
            for key, _ in selector.select():
                _hand_on(key.fileobj, key.data)


def _hand_on(source: object, sink: socket.socket) -> None:
    assert isinstance(source, socket.socket)
    try:
        frame, address = source.recvfrom(_LARGEST_FRAME)
        if source.family == socket.AF_PACKET and address[2] == socket.PACKET_OUTGOING:
            return  # sent by the host, not to the guest
        sink.send(frame)
    except OSError:
        # Nobody at the other end: no guest here yet, or it has moved.  A network may lose frames.
        return


def main(arguments: list[str]) -> None:
    """Take the sockets over and carry."""
    packets, datagrams = (socket.socket(fileno=int(number)) for number in arguments)
    carry(packets, datagrams)


if __name__ == "__main__":
    main(sys.argv[1:])
