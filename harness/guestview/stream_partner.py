# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of a connection and of datagrams, in a thread of its own.

The other end is ``vm-images/guest/workloads/stream.c``, which says what goes over the
wire.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from harness.errors import MachineryError
from harness.guestview.partner import Partner
from harness.guestview.stream import StreamAccount
from harness.memory import formula

PORT: Final = 7700
_CONNECT_SECONDS: Final = 30.0
_TICK: Final = 0.01
_CHUNK: Final = 1 << 16
#: The pages of the formula that go each way, in generation 0; the generations of datagrams.
_TO_GUEST, _TO_HOST = 1, 2
_DATAGRAM, _DATAGRAM_BACK = 3, 4
_DATAGRAM_WORDS: Final = 64
#: After the guest has moved so much has to come before the connection is ended.
_AFTER_BYTES, _AFTER_DATAGRAMS = 1 << 16, 8


class _Gap:
    """The longest time between two arrivals."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()

    def arrived(self) -> None:
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now


class _Connection:
    """One end of the stream; ``rate`` is in bytes a second."""

    def __init__(self, connected: socket.socket, seed: int, rate: int) -> None:
        self.socket = connected
        self.sent = self.received = self.after = 0
        self.first_wrong: int | None = None
        self.error: str | None = None
        self.ended = False
        self.gap = _Gap()
        self._seed = seed
        self._rate = rate
        self._last = time.monotonic()

    @property
    def over(self) -> bool:
        """Nothing more comes."""
        return self.ended or self.error is not None

    def take(self, *, after: bool) -> None:
        """Read what came, and check it."""
        with self._broken():
            came = self.socket.recv(_CHUNK)
            if not came:
                self.ended = True
                return
            if came != self._bytes(_TO_HOST, self.received, len(came)) and self.first_wrong is None:
                expected = self._bytes(_TO_HOST, self.received, len(came))
                wrong = next(at for at in range(len(came)) if came[at] != expected[at])
                self.first_wrong = self.received + wrong
            self.received += len(came)
            self.after += len(came) if after else 0
            self.gap.arrived()

    def give(self) -> None:
        """Send what is due; what a long wait left undone is not made up for."""
        now = time.monotonic()
        due = int(self._rate * min(now - self._last, 5 * _TICK))
        if due <= 0:
            return
        self._last = now
        with self._broken():
            self.sent += self.socket.send(self._bytes(_TO_GUEST, self.sent, due))

    def end(self) -> None:
        """Say that there is no more to come."""
        with self._broken():
            self.socket.shutdown(socket.SHUT_WR)

    @contextlib.contextmanager
    def _broken(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = self.error or error.strerror or str(error)

    def _bytes(self, page: int, at: int, count: int) -> bytes:
        first = at // 8
        words = formula.endless(self._seed, page, 0, first, (at + count + 7) // 8 - first)
        return words.astype("<u8").tobytes()[at - 8 * first :][:count]


class _Datagrams:
    """Numbered ones, which come back."""

    def __init__(self, connected: socket.socket, seed: int) -> None:
        self.socket = connected
        self.sent = self.right = self.wrong = self.right_after = 0
        self.gap = _Gap()
        self._seed = seed

    def give(self) -> None:
        """Send the next one.  A full queue, or a guest that nobody finds: it is lost."""
        self.sent += 1
        words = formula.endless(self._seed, self.sent, _DATAGRAM, 1, _DATAGRAM_WORDS - 1)
        with contextlib.suppress(OSError):
            self.socket.send(struct.pack("<Q", self.sent) + words.astype("<u8").tobytes())

    def take(self, *, after: bool) -> None:
        """Read one that came back, and check it."""
        with contextlib.suppress(OSError):
            came = self.socket.recv(_CHUNK)
            number = int.from_bytes(came[:8], "little")
            words = formula.endless(self._seed, number, _DATAGRAM_BACK, 1, _DATAGRAM_WORDS - 1)
            if 0 < number <= self.sent and came[8:] == words.astype("<u8").tobytes():
                self.right += 1
                self.right_after += after
            else:
                self.wrong += 1
            self.gap.arrived()


class StreamPartner(Partner):
    """Context manager: connects when it is entered.  Raises :class:`MachineryError` if it cannot."""

    def __init__(self, address: str, seed: int, rate: int) -> None:
        self._address = (address, PORT)
        self._seed = seed
        self._rate = rate
        self._moved = threading.Event()
        self._leave = threading.Event()
        self._done = threading.Event()
        self._waited = 0.0
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    def __enter__(self) -> Self:
        try:
            connected = socket.create_connection(self._address, _CONNECT_SECONDS)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.connect(self._address)
        except OSError as error:
            raise MachineryError(f"the guest cannot be reached at {self._address}: {error}") from error
        for one in (connected, datagrams):
            one.setblocking(False)
        self._stream = _Connection(connected, self._seed, self._rate)
        self._datagrams = _Datagrams(datagrams, self._seed)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()
        self._stream.socket.close()
        self._datagrams.socket.close()

    def finish(self, seconds: float) -> None:
        """Wait until data has come from where the guest is now, and for the end of the connection."""
        since = time.monotonic()
        self._moved.set()
        self._done.wait(seconds)
        self._waited = time.monotonic() - since
        self._leave.set()
        self._thread.join()

    def account(self) -> StreamAccount:
        """What both have seen."""
        stream, datagrams = self._stream, self._datagrams
        return StreamAccount(
            sent=stream.sent,
            received=stream.received,
            first_wrong=stream.first_wrong,
            error=stream.error,
            after=stream.after,
            ended=stream.ended,
            gap=stream.gap.longest,
            datagrams=datagrams.sent,
            right=datagrams.right,
            wrong=datagrams.wrong,
            right_after=datagrams.right_after,
            datagram_gap=datagrams.gap.longest,
            waited=self._waited,
        )

    def _work(self) -> None:
        """Until it is over, or nobody waits for it any more."""
        stream, datagrams = self._stream, self._datagrams
        ending, due = False, time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            selector.register(datagrams.socket, selectors.EVENT_READ, datagrams)
            while not self._leave.is_set():
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    key.data.take(after=self._moved.is_set())
                    if stream.over and key.data is stream:
                        selector.unregister(stream.socket)
                if time.monotonic() < due:
                    continue
                due = time.monotonic() + _TICK
                datagrams.give()
                arrived = stream.after >= _AFTER_BYTES or stream.over
                if self._moved.is_set() and arrived and not ending:
                    ending = True
                    stream.end()
                elif not ending and not stream.over:
                    stream.give()
                if stream.over and datagrams.right_after >= _AFTER_DATAGRAMS:
                    self._done.set()
