# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console, seen from outside: every byte is an event, nobody polls a file.

    with Console(events, folder / "console.log") as console:
        console.listen("source", sockets.console)
        ... start the guest ...
        console.wait_for("ready to go", Deadline(60, "boot"))

One log for both hosts: the destination's QEMU goes on in the middle of the line
in which the source's stopped.
"""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import threading
from pathlib import Path
from typing import Final

from harness.errors import GuestLost
from harness.events import Deadline, EventStream
from harness.guest.ports import PortOwner

_PANIC: Final = re.compile(r"Kernel panic - not syncing|---\[ end Kernel panic")
_ESCAPES: Final = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")
_CHUNK: Final = 65536

#: Longest line kept; a guest gone mad may never end one.
_LONGEST: Final = 4096


class Console(PortOwner):
    """Logs every byte, emits every line, keeps the last ones, and notices a panic."""

    def __init__(self, events: EventStream, log: Path, *, keep: int = 200) -> None:
        super().__init__("console")
        self._events = events
        # Unbuffered: the log is complete whatever happens to this process.
        self._log = log.open("xb", buffering=0)
        self._changed = threading.Condition()
        self._lines: collections.deque[str] = collections.deque(maxlen=keep)
        self._count = 0
        self._partial = b""
        self._panic: str | None = None
        self._connections = 0

    def _ended(self) -> None:
        self._log.close()

    def listen(self, host: str, path: Path) -> None:
        """Take the console of the QEMU on ``host`` too, which will connect to ``path``."""

        def connected(connection: socket.socket) -> None:
            self._connections += 1
            self._ports.watch(connection, lambda: self._read(connection, f"{host}.console"))

        self._ports.listen(path, connected)

    def tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines, the unfinished one included."""
        with self._changed:
            everything = [*self._lines, *([_clean(self._partial)] if self._partial else [])]
        return tuple(everything[-lines:])

    @property
    def panic(self) -> str | None:
        """The line in which the guest's kernel gave up, if it has."""
        return self._panic

    def wait_for(self, pattern: str | re.Pattern[str], deadline: Deadline) -> re.Match[str]:
        """Wait for a line that ``pattern`` is found in; kept lines from before count as well.

        Raises :class:`GuestLost`, with the last lines, when the guest panics, when
        its QEMU ends, or when the deadline passes.
        """
        wanted = re.compile(pattern)
        seen = 0
        with self._changed:
            while True:
                fresh = min(self._count - seen, len(self._lines))
                for line in [*list(self._lines)[len(self._lines) - fresh :], _clean(self._partial)]:
                    if match := wanted.search(line):
                        return match
                seen = self._count
                if self._panic is not None:
                    raise self.lost(f"the guest's kernel panicked: {self._panic}")
                if self._connections < 0:
                    raise self.lost("the guest's QEMU has ended")
                if deadline.expired:
                    raise self.lost(f"{deadline.what}: not within {deadline.seconds:g} s")
                self._changed.wait(deadline.remaining())

    def drain(self, deadline: Deadline) -> None:
        """Read on until every QEMU has closed its end: the last words of one that has ended.

        One that runs on keeps its end open; then what there is by the deadline has to do.
        """
        with self._changed:
            while self._connections > 0 and not deadline.expired:
                self._changed.wait(deadline.remaining())

    def lost(self, message: str) -> GuestLost:
        """An error with the console's last lines."""
        return GuestLost(message, last_lines=self.tail())

    # --- in the thread

    def _read(self, connection: socket.socket, source: str) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = connection.recv(_CHUNK)
        if not data:
            self._ports.forget(connection)
            self._end(source)
            return
        self._log.write(data)
        with self._changed:
            *complete, self._partial = (self._partial + data).split(b"\n")
            self._partial = self._partial[-_LONGEST:]
            lines = [_clean(line) for line in complete]
            self._lines.extend(lines)
            self._count += len(lines)
            self._changed.notify_all()
        for line in lines:
            self._events.emit("console", source=source, text=line)
            if self._panic is None and _PANIC.search(line):
                self._events.emit("guest-panic", source=source, text=line)
                with self._changed:
                    self._panic = line
                    self._changed.notify_all()

    def _end(self, source: str) -> None:
        self._events.emit("console-closed", source=source)
        with self._changed:
            self._connections -= 1
            if self._connections == 0:
                self._connections = -1  # there was one, and there is none any more
            self._changed.notify_all()


def _clean(line: bytes) -> str:
    return _ESCAPES.sub("", line[:_LONGEST].decode(errors="replace").rstrip("\r"))
