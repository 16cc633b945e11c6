# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU announces after a migration: where the guest's NICs are now.

    heard = Announcements(["destination", "destination1"])   # the lab's links to a host, one for each segment
    heard.forget()                                           # a new QEMU is about to start there
    heard.heard(0, nic.mac, deadline)                        # True: it has announced this NIC

QEMU sends a reverse ARP request of each of its NICs when the guest is about to run there
(``qemu_announce_self`` in net/announce.c), five times by default, and switches on the way learn from it.
The kernel keeps what has come until it is read, so nobody has to listen all the time.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from ctypes import addressof, create_string_buffer
from typing import Final

from harness.events import Deadline

_EVERYTHING: Final = 0x0003
_RARP: Final = 0x8035
_SO_ATTACH_FILTER: Final = 26
#: Classic BPF, as in linux/filter.h: code, jump if true, jump if false, and a number.
_INSTRUCTION: Final = "HBBI"
_ONLY_RARP: Final = (
    (0x28, 0, 0, 12),  # the half word at 12, the frame's type
    (0x15, 0, 1, _RARP),
    (0x06, 0, 0, 0xFFFF),  # all of it
    (0x06, 0, 0, 0),  # nothing
)


class Announcements:
    """The announcements that come from one host; make it in the network that the links are in."""

    def __init__(self, links: Sequence[str]) -> None:
        # Before the bridge takes a frame from its port, only who wants all of them sees it.
        self._sockets = [_listen(link) for link in links]
        self._seen: set[tuple[int, str]] = set()

    def forget(self) -> None:
        """What has come until now does not count."""
        for segment in range(len(self._sockets)):
            self._read(segment)
        self._seen.clear()

    def heard(self, segment: int, mac: str, deadline: Deadline) -> bool:
        """Whether a NIC on a segment has been announced; waits for it until the deadline."""
        while (segment, mac) not in self._seen and not deadline.expired:
            select.select([self._sockets[segment]], [], [], max(deadline.remaining(), 0))
            self._read(segment)
        return (segment, mac) in self._seen

    def _read(self, segment: int) -> None:
        while True:
            try:
                frame, (_, _, kind, *_) = self._sockets[segment].recvfrom(2048)
            except BlockingIOError:
                return
            # What the bridge sends on to this host comes by, too.
            if kind != socket.PACKET_OUTGOING:
                self._seen.add((segment, frame[6:12].hex(":")))


def _listen(link: str) -> socket.socket:
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    program = create_string_buffer(b"".join(struct.pack(_INSTRUCTION, *one) for one in _ONLY_RARP))
    frames.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_ONLY_RARP), addressof(program))
    )
    frames.bind((link, _EVERYTHING))
    return frames
