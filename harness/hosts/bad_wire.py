# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration wire with delay, loss, reordering, a rate, and an end: frames pass through this process.

The kernel's netem would do most of this, but many kernels lack it, and it cannot end
a stream at a byte.  Run by path, with inherited descriptors: a packet socket of each
side, and a stream socket for orders and words, a JSON object in each line::

    python -I -S bad_wire.py SOURCE DESTINATION CONTROL SEED

Orders: ``{"conditions": {"delay": 0.05, "loss": 0.01, "reorder": 0.0, "rate": 1e6}}``
(seconds, shares of 1, bytes a second; 0: none), ``{"cut_after": 1000000, "reset": true}``
and ``{"mend": true}``.  Each is answered with the same line when it holds; and
``{"cut": 1000000}`` is said when that many bytes have left.
"""

from __future__ import annotations

import heapq
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_LARGEST_FRAME: Final = 65536
#: Seconds' worth of frames that wait for their turn at a limited rate; what comes beyond is dropped.
_PATIENCE: Final = 0.2
_SMALLEST_QUEUE: Final = 256 << 10
#: A frame that is overtaken waits at least so long, in seconds.
_OVERTAKEN: Final = 0.005

_ETHERNET: Final = 14
_IPV4: Final = 0x0800
_TCP: Final = 6
_SYN: Final = 0x02
_RST: Final = 0x04
_ACK: Final = 0x10
_RST_ACK: Final = 0x14
_WRAP: Final = 1 << 32


@dataclass(frozen=True)
class Conditions:
    """How the wire is: seconds of delay each way, shares of frames, bytes a second; 0: none, and no limit."""

    delay: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    rate: float = 0.0


class Direction:
    """One way through the wire: says when a frame leaves it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._free_at = 0.0

    def due(self, length: int, now: float, conditions: Conditions) -> float | None:
        """The time at which a frame of ``length`` bytes leaves; None: it is lost."""
        if conditions.loss and self._chance.random() < conditions.loss:
            return None
        at = now
        if conditions.rate:
            at = max(now, self._free_at)
            if (at - now) * conditions.rate > max(_SMALLEST_QUEUE, conditions.rate * _PATIENCE):
                return None
            at = self._free_at = at + length / conditions.rate
        if conditions.reorder and self._chance.random() < conditions.reorder:
            at += max(conditions.delay, _OVERTAKEN)
        return at + conditions.delay


@dataclass(frozen=True)
class Segment:
    """A TCP segment over IPv4, in a frame without options of Ethernet's."""

    frame: bytes
    header: int
    """Where its payload begins."""
    end: int
    """Where it ends; a short frame is padded."""

    @classmethod
    def read(cls, frame: bytes) -> Segment | None:
        """None: the frame is something else."""
        if len(frame) < _ETHERNET + 40 or struct.unpack_from("!H", frame, 12)[0] != _IPV4:
            return None
        ip = (frame[_ETHERNET] & 0x0F) * 4
        length: int = struct.unpack_from("!H", frame, _ETHERNET + 2)[0]
        if frame[_ETHERNET + 9] != _TCP or len(frame) < _ETHERNET + max(length, ip + 20):
            return None
        header = _ETHERNET + ip + (frame[_ETHERNET + ip + 12] >> 4) * 4
        return cls(frame, header, _ETHERNET + length) if header <= _ETHERNET + length else None

    @property
    def _tcp(self) -> int:
        return _ETHERNET + (self.frame[_ETHERNET] & 0x0F) * 4

    @property
    def ports(self) -> tuple[int, int]:
        """Sender's and receiver's."""
        sender, receiver = struct.unpack_from("!HH", self.frame, self._tcp)
        return sender, receiver

    @property
    def sequence(self) -> int:
        """Of its first byte."""
        number: int = struct.unpack_from("!I", self.frame, self._tcp + 4)[0]
        return number

    @property
    def flags(self) -> int:
        """SYN, RST and the others."""
        return self.frame[self._tcp + 13]

    @property
    def acknowledges(self) -> int:
        """What its sender expects next."""
        number: int = struct.unpack_from("!I", self.frame, self._tcp + 8)[0]
        return number

    @property
    def payload(self) -> int:
        """Bytes."""
        return self.end - self.header

    @property
    def next_sequence(self) -> int:
        """What the receiver expects after it."""
        return (self.sequence + self.payload + bool(self.flags & _SYN)) % _WRAP

    def shortened(self, payload: int) -> bytes:
        """The same frame with only the first bytes of its payload."""
        frame = bytearray(self.frame[: self.header + payload])
        return _summed(frame)

    def reset(self, sequence: int, acknowledge: int) -> bytes:
        """A frame like this one that ends the connection: its sender's RST."""
        frame = bytearray(self.frame[: self._tcp + 20])
        struct.pack_into("!IIBBHHH", frame, self._tcp + 4, sequence, acknowledge, 5 << 4, _RST_ACK, 0, 0, 0)
        return _summed(frame)

    def refusal(self) -> bytes | None:
        """A frame back to its sender: the RST of a host that knows no such connection; None: it is one."""
        if self.flags & _RST:
            return None
        frame = bytearray(self.frame[: self._tcp + 20])
        frame[:12] = self.frame[6:12] + self.frame[:6]
        source, sender = _ETHERNET + 12, self._tcp
        frame[source : source + 8] = self.frame[source + 4 : source + 8] + self.frame[source : source + 4]
        frame[sender : sender + 4] = self.frame[sender + 2 : sender + 4] + self.frame[sender : sender + 2]
        sequence = self.acknowledges if self.flags & _ACK else 0
        answer = sequence, self.next_sequence, 5 << 4, _RST_ACK, 0, 0, 0
        struct.pack_into("!IIBBHHH", frame, self._tcp + 4, *answer)
        return _summed(frame)


def _summed(frame: bytearray) -> bytes:
    """With the lengths and checksums of IPv4 and TCP set right."""
    ip = (frame[_ETHERNET] & 0x0F) * 4
    tcp = _ETHERNET + ip
    struct.pack_into("!H", frame, _ETHERNET + 2, len(frame) - _ETHERNET)
    struct.pack_into("!H", frame, _ETHERNET + 10, 0)
    struct.pack_into("!H", frame, _ETHERNET + 10, _checksum(bytes(frame[_ETHERNET:tcp])))
    struct.pack_into("!H", frame, tcp + 16, 0)
    pseudo = bytes(frame[_ETHERNET + 12 : _ETHERNET + 20]) + struct.pack("!HH", _TCP, len(frame) - tcp)
    struct.pack_into("!H", frame, tcp + 16, _checksum(pseudo + bytes(frame[tcp:])))
    return bytes(frame)


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@dataclass
class _Flow:
    """A connection: the newest segment each way, and what each side expects next."""

    there: Segment
    expected_there: int
    back: Segment | None = None
    expected_here: int = 0


@dataclass
class StreamCut:
    """Lets so many bytes of TCP payload through from the source, of all connections together, and no more."""

    limit: int
    resets: bool
    done: bool = False
    _passed: int = 0
    _flows: dict[tuple[int, int], _Flow] = field(default_factory=dict)

    def there(self, frame: bytes) -> bytes | None:
        """What is left of a frame of the source's; None: nothing."""
        if self.done:
            return None
        segment = Segment.read(frame)
        if segment is None:
            return frame
        flow = self._flows.get(segment.ports)
        if flow is None or segment.flags & _SYN:
            self._flows[segment.ports] = flow = _Flow(segment, segment.sequence)
            if segment.flags & _SYN:
                flow.expected_there = segment.next_sequence
                return frame
        new = (segment.next_sequence - flow.expected_there) % _WRAP
        if not segment.payload or new >= _WRAP // 2:
            # Nothing that has not been there already.
            return frame
        if self._passed + new >= self.limit:
            keep = segment.payload - (self._passed + new - self.limit)
            self._passed, self.done = self.limit, True
            flow.there = segment
            flow.expected_there = (segment.sequence + max(keep, 0)) % _WRAP
            return segment.shortened(keep) if keep > 0 else None
        self._passed += new
        flow.there, flow.expected_there = segment, segment.next_sequence
        return frame

    def back(self, frame: bytes) -> bytes | None:
        """As well, for a frame of the destination's."""
        if self.done:
            return None
        segment = Segment.read(frame)
        if segment is not None:
            flow = self._flows.get((segment.ports[1], segment.ports[0]))
            if flow is not None:
                ahead = (segment.next_sequence - flow.expected_here) % _WRAP
                if flow.back is None or ahead < _WRAP // 2:
                    flow.back, flow.expected_here = segment, segment.next_sequence
        return frame

    def farewells(self) -> Iterator[tuple[bool, bytes]]:
        """Frames that end the connections: for the destination (True) and for the source (False)."""
        for flow in self._flows.values():
            yield True, flow.there.reset(flow.expected_there, flow.expected_here)
            if flow.back is not None:
                yield False, flow.back.reset(flow.expected_here, flow.expected_there)


class BadWire:
    """The wire itself: frames that wait for their time, and the orders that it has."""

    def __init__(self, seed: int) -> None:
        self.conditions = Conditions()
        self._ways = {True: Direction(random.Random(seed)), False: Direction(random.Random(seed + 1))}
        self._waiting: list[tuple[float, int, bool, bytes]] = []
        self._number = 0
        self._cut: StreamCut | None = None

    def obey(self, order: dict[str, Any]) -> None:
        """Do as an order says."""
        if "conditions" in order:
            self.conditions = Conditions(**order["conditions"])
        elif "cut_after" in order:
            self._cut = StreamCut(int(order["cut_after"]), bool(order["reset"]))
        elif order.get("mend"):
            self._cut = None

    def take(self, frame: bytes, now: float, *, there: bool) -> int | None:
        """A frame has come; returns after how many bytes the stream was cut, if it was just now."""
        cut = self._cut
        kept: bytes | None = frame
        was_cut = cut is not None and cut.done
        if cut is not None:
            kept = cut.there(frame) if there else cut.back(frame)
        if kept is not None:
            due = self._ways[there].due(len(kept), now, self.conditions)
            if due is not None:
                self._wait(due, kept, there=there)
        if cut is not None and was_cut and cut.resets:
            self._refuse(frame, now, there=there)
        if cut is None or was_cut or not cut.done:
            return None
        if cut.resets:
            # After whatever is still on its way.
            last = max((one[0] for one in self._waiting), default=now)
            for onward, farewell in cut.farewells():
                self._wait(last, farewell, there=onward)
        return cut.limit

    def _refuse(self, frame: bytes, now: float, *, there: bool) -> None:
        """What is said to who sends after the cut: a connection that he begins is refused, an old one gone.

        Without that a connection that was being made just then would be made for minutes.
        """
        segment = Segment.read(frame)
        if segment is None:
            # Nothing of TCP's, such as the question who has an address.
            self._wait(now, frame, there=there)
        elif (refusal := segment.refusal()) is not None:
            self._wait(now, refusal, there=not there)

    def _wait(self, due: float, frame: bytes, *, there: bool) -> None:
        self._number += 1
        heapq.heappush(self._waiting, (due, self._number, there, frame))

    def leaving(self, now: float) -> Iterator[tuple[bool, bytes]]:
        """The frames whose time has come, and which way they go."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, there, frame = heapq.heappop(self._waiting)
            yield there, frame

    def patience(self, now: float) -> float | None:
        """Seconds until the next frame leaves; None: none waits."""
        return max(self._waiting[0][0] - now, 0.0) if self._waiting else None


def carry_badly(
    wire: BadWire, source: socket.socket, destination: socket.socket, control: socket.socket
) -> None:
    """Carry frames until the other end of ``control`` is gone."""
    with selectors.DefaultSelector() as selector, control.makefile("rb") as orders:
        for one in (source, destination, control):
            selector.register(one, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(wire.patience(time.monotonic())):
                if key.fileobj is control:
                    line = orders.readline()
                    if not line:
                        return
                    wire.obey(json.loads(line))
                    control.sendall(line)
                else:
                    there = key.fileobj is source
                    cut = _receive(wire, source if there else destination, there=there)
                    if cut is not None:
                        control.sendall(json.dumps({"cut": cut}).encode() + b"\n")
            for onward, frame in wire.leaving(time.monotonic()):
                _send(destination if onward else source, frame)


def _receive(wire: BadWire, side: socket.socket, *, there: bool) -> int | None:
    try:
        frame, address = side.recvfrom(_LARGEST_FRAME)
    except OSError:
        return None  # its link is down: a wire loses frames
    if address[2] == socket.PACKET_OUTGOING:
        return None  # what we have sent ourselves
    return wire.take(frame, time.monotonic(), there=there)


def _send(side: socket.socket, frame: bytes) -> None:
    try:
        side.send(frame)
    except OSError:
        return  # likewise


def main(arguments: list[str]) -> None:
    """Take the sockets over and carry."""
    packets = [socket.socket(fileno=int(number)) for number in arguments[:2]]
    control = socket.socket(fileno=int(arguments[2]))
    carry_badly(BadWire(int(arguments[3])), packets[0], packets[1], control)


if __name__ == "__main__":
    main(sys.argv[1:])
