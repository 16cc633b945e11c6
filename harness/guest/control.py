# SPDX-License-Identifier: GPL-2.0-or-later
"""Talk to the agent in the guest, over its second serial port.

    with GuestControl(events) as control:
        control.listen("source", sockets.control)       # before its QEMU starts
        ready = control.wait_ready(Deadline(60, "boot"))
        control.call("load", "freed", 7, 1 << 30, deadline=Deadline(60, "load"))
        ... migrate; the destination's QEMU connects to another listener ...
        control.rebind("destination")                   # optional, see below
        control.call("verify", deadline=Deadline(600, "verify"))

The port is migrated with the guest, in the middle of a byte if it comes to that,
and what one side had not yet read is lost.  So calls are numbered, the agent
does nothing twice, and a call is simply sent again: on another connection when
the guest has moved, and after a while in any case.  A NAK in front of it makes
the agent forget the beginning of a line whose end was lost.

Which connection leads to the guest: the one that :meth:`rebind` named; else the
one on which it spoke last; and when that is closed, another one.  A host at which a
guest is about to arrive is muted: a byte that reached its QEMU before the guest runs
there would be in the state of its serial port, which has to be as the source's was.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from harness.errors import GuestLost, GuestRefused
from harness.events import Deadline, EventStream
from harness.guest.ports import PortOwner
from harness.guest.replies import REPLIES, Hello, Plain, Reply

#: Longest line in either direction, without its end.
LONGEST_LINE: Final = 4095

_NAK: Final = b"\x15"
_CHUNK: Final = 65536
_ARGUMENT: Final = re.compile(r"[!-~]+")
_ANSWER: Final = re.compile(r"([1-9][0-9]{0,19}) (ok|error) (.*)")

#: What SO_PEERCRED says: process, user, group (unix(7)).
_CREDENTIALS: Final = struct.Struct("3i")
#: Seconds until a call is sent again for the first time; each time twice as long, up to the last.
_AGAIN_FIRST: Final = 2.0
_AGAIN_LAST: Final = 30.0


@dataclass(eq=False, slots=True)
class _Connection:
    host: str
    socket: socket.socket
    partial: bytes = b""
    overlong: bool = False


@dataclass(eq=False, slots=True)
class _Call:
    """A line that was sent and has no answer yet; ``reply`` is "ok" or "error" and the rest."""

    number: int
    line: bytes
    reply: tuple[str, str] | None = None
    sent_to: list[_Connection] = field(default_factory=list)


class GuestControl(PortOwner):
    """Context manager: a thread reads while it is entered.  Calls may come from any thread."""

    def __init__(self, events: EventStream, *, last_lines: Callable[[], Sequence[str]] | None = None) -> None:
        super().__init__("control")
        self._events = events
        self._last_lines = last_lines
        self._changed = threading.Condition()
        self._connections: list[_Connection] = []
        #: The processes that have connected, by their numbers here: its QEMUs, in a lab.
        self.peers: set[int] = set()
        self._active: _Connection | None = None
        self._had_one = False
        self._ready: Hello | None = None
        self._calls: dict[int, _Call] = {}
        #: Why no answer will come, as others know; and who is asked that before a call is repeated.
        self._dead: str | None = None
        self._silence: Callable[[], str | None] | None = None
        #: Hosts that nothing is sent to.
        self._muted: set[str] = set()
        # Grows from one process to the next as well: the agent keeps its last answers.
        self._number = time.time_ns() // 1_000_000

    def listen(self, host: str, path: Path) -> None:
        """Wait for the QEMU on ``host``, which will connect to ``path``."""
        self._ports.listen(path, lambda connection: self.attach(host, connection))

    def attach(self, host: str, connected: socket.socket) -> None:
        """Take over a connection to the QEMU on ``host``."""
        # A guest that does not read must not stop us; what does not fit is sent again.
        connected.setblocking(False)
        connection = _Connection(host, connected)
        said = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        with self._changed:
            self.peers.add(_CREDENTIALS.unpack(said)[0])
            self._connections.append(connection)
            self._had_one = True
            if self._active is None:
                self._active = connection
            self._changed.notify_all()
        self._ports.watch(connected, lambda: self._read(connection))

    def rebind(self, host: str) -> None:
        """The guest runs on ``host`` now: what waits for an answer is sent there at once."""
        with self._changed:
            self._muted.discard(host)
            for connection in self._connections:
                if connection.host == host:
                    self._active = connection
            self._changed.notify_all()

    def mute(self, host: str) -> None:
        """Send nothing to the QEMU on ``host`` until :meth:`rebind` names it: no guest runs there yet."""
        with self._changed:
            self._muted.add(host)

    def forget_ready(self) -> None:
        """The guest is about to boot again: :meth:`wait_ready` waits for its next word."""
        with self._changed:
            self._ready = None

    @property
    def boots_again(self) -> bool:
        """Whether the guest was made to boot again, and has not said yet that it has."""
        return self._ready is None

    def lose(self, words: str) -> None:
        """The guest is known to have died: whoever waits for it, now or later, raises :class:`GuestLost`.

        May be called in any thread, also in one that emits an event.
        """
        with self._changed:
            self._dead = words
            self._changed.notify_all()

    def revive(self) -> None:
        """Whoever knew of its death looks no more."""
        with self._changed:
            self._dead = None

    def ask_before_repeating(self, silence: Callable[[], str | None] | None) -> None:
        """Have ``silence`` asked when a call has had no answer for a while: words say that none will come."""
        self._silence = silence

    def wait_ready(self, deadline: Deadline) -> Mapping[str, object]:
        """Wait for the guest's own word; returns what it says of itself."""
        with self._changed:
            while self._ready is None:
                self._wait(deadline, deadline.remaining())
            return self._ready.model_dump()

    def stay(self, seconds: float) -> None:
        """Let some time pass.  Raises :class:`GuestLost` when there is no guest any more."""
        until = Deadline(seconds, "waiting")
        with self._changed:
            while not until.expired:
                self._wait(Deadline(seconds + 1, until.what), until.remaining())

    def greet(self, deadline: Deadline) -> Mapping[str, object]:
        """Ask a guest that goes on, and so does not say it by itself, what :meth:`wait_ready` waits for."""
        hello = Hello.model_validate(self.call("ping", deadline=deadline))
        with self._changed:
            source = self._active.host if self._active is not None else "guest"
        # As ever: first the event.
        self._events.emit("guest-ready", source=f"{source}.control", **hello.model_dump())
        with self._changed:
            self._ready = hello
            self._changed.notify_all()
        return hello.model_dump()

    def call(self, verb: str, *args: str | int, deadline: Deadline) -> Mapping[str, object]:
        """Have the agent do something; its answer, validated (see :mod:`harness.guest.replies`).

        Raises :class:`GuestLost` when there is no answer by the deadline or no
        guest any more, :class:`GuestRefused` when the agent refuses.
        """
        words = [verb, *map(str, args)]
        if not all(_ARGUMENT.fullmatch(word) for word in words):
            raise ValueError(f"not printable ASCII without blanks: {words!r}")
        with self._changed:
            self._number += 1
            call = _Call(self._number, f"{self._number} {' '.join(words)}\n".encode("ascii"))
            if len(call.line) > LONGEST_LINE:
                raise ValueError(f"longer than a line: {verb}")
            self._calls[call.number] = call
            try:
                outcome, text = self._wait_answer(call, deadline)
            finally:
                del self._calls[call.number]
        if outcome == "error":
            raise GuestRefused(f"the guest cannot {' '.join(words)}: {text}")
        return self._validated(REPLIES.get(verb, Plain), text).model_dump()

    def _wait_answer(self, call: _Call, deadline: Deadline) -> tuple[str, str]:
        again, due = _AGAIN_FIRST, time.monotonic() + _AGAIN_FIRST
        while call.reply is None:
            if self._active is not None and self._active not in call.sent_to:
                self._send(call, self._active)
            if time.monotonic() >= due:
                self._demand_life()
                # It may have moved without telling us, or never have heard: everywhere.
                for connection in self._connections:
                    self._send(call, connection)
                again = min(again * 2, _AGAIN_LAST)
                due = time.monotonic() + again
            self._wait(deadline, min(deadline.remaining(), max(due - time.monotonic(), 0.0)))
        return call.reply

    def _demand_life(self) -> None:
        """Ask whether it can still answer.  The lock is let go: this takes time, and emits events."""
        silence = self._silence
        if silence is None:
            return
        self._changed.release()
        try:
            words = silence()
        finally:
            self._changed.acquire()
        if words is not None:
            raise self._lost(words)

    def _send(self, call: _Call, connection: _Connection) -> None:
        if connection.host in self._muted:
            return
        call.sent_to.append(connection)
        with contextlib.suppress(OSError):  # gone: the reading thread notices; full: again later
            connection.socket.send(_NAK + call.line)

    def _wait(self, deadline: Deadline, seconds: float) -> None:
        """Wait for a change; raises when none can come any more."""
        if self._dead is not None:
            raise self._lost(self._dead)
        if self._had_one and not self._connections:
            raise self._lost("the guest's QEMU has ended")
        if deadline.expired:
            raise self._lost(f"{deadline.what}: not within {deadline.seconds:g} s")
        self._changed.wait(seconds)

    def _lost(self, message: str) -> GuestLost:
        return GuestLost(message, last_lines=self._last_lines() if self._last_lines else ())

    def _validated(self, model: type[Reply], text: str) -> Reply:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise self._lost(f"the guest's answer makes no sense: {problem}: {text[:200]}") from None

    # --- in the thread

    def _read(self, connection: _Connection) -> None:
        data = b""
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            pass  # reset: as good as closed
        if not data:
            self._closed(connection)
            return
        *complete, rest = (connection.partial + data).split(b"\n")
        for line in complete:
            if connection.overlong or len(line) > LONGEST_LINE:
                self._strange(connection, line)
            elif line.strip(b"\r"):
                self._line(connection, line.rstrip(b"\r"))
            connection.overlong = False
        # A line without an end costs no more memory than one with.
        connection.overlong |= len(rest) > LONGEST_LINE
        connection.partial = rest[: LONGEST_LINE + 1]

    def _closed(self, connection: _Connection) -> None:
        self._events.emit("control-closed", source=f"{connection.host}.control")
        with self._changed:
            self._ports.forget(connection.socket)
            self._connections.remove(connection)
            if self._active is connection:
                self._active = self._connections[-1] if self._connections else None
            self._changed.notify_all()

    def _line(self, connection: _Connection, raw: bytes) -> None:
        source = f"{connection.host}.control"
        try:
            line = raw.decode("ascii")
        except UnicodeDecodeError:
            self._strange(connection, raw)
            return
        if line.startswith("! "):
            self._events.emit("guest-says", source=source, text=line[2:])
        elif line.startswith("ready "):
            self._take_ready(connection, line.removeprefix("ready "))
        elif answer := _ANSWER.fullmatch(line):
            self._take_answer(connection, int(answer[1]), answer[2], answer[3])
        else:
            self._strange(connection, raw)

    def _take_ready(self, connection: _Connection, text: str) -> None:
        try:
            hello = Hello.model_validate_json(text)
        except ValidationError:
            self._strange(connection, text.encode())
            return
        # First the event: who is woken by what follows finds it in the stream.
        self._events.emit("guest-ready", source=f"{connection.host}.control", **hello.model_dump())
        with self._changed:
            self._ready = hello
            self._active = connection
            self._changed.notify_all()

    def _take_answer(self, connection: _Connection, number: int, outcome: str, text: str) -> None:
        with self._changed:
            call = self._calls.get(number)
        kind = "guest-answer" if call is not None else "guest-answer-late"
        self._events.emit(kind, source=f"{connection.host}.control", call=number, outcome=outcome, text=text)
        with self._changed:
            # The first answer counts; only this thread writes it.
            if call is not None and call.reply is None:
                call.reply = (outcome, text)
                self._active = connection
                self._changed.notify_all()

    def _strange(self, connection: _Connection, raw: bytes) -> None:
        """Not a line of the protocol; half a line, after a migration, is nothing unusual."""
        text = json.dumps(raw[:200].decode("ascii", errors="backslashreplace"))
        self._events.emit("guest-garbage", source=f"{connection.host}.control", text=text)
