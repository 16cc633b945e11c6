# SPDX-License-Identifier: GPL-2.0-or-later
"""The relay that a bad migration wire passes through, and the orders that it is given (see bad_wire.py)."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.errors import HostLost
from harness.events import EventStream, patience
from harness.hosts import bad_wire, tap

if TYPE_CHECKING:
    from harness.scenario.wire import WireConditions

#: How long the relay may take to obey.
OBEY_SECONDS: Final = 30.0


def start_tap(onward: str, folder: Path) -> int:
    """Start a tap in the calling thread's network; see :mod:`harness.hosts.tap`.  Returns its port."""
    folder.mkdir()
    with socket.socket() as listening, (folder / "tap.log").open("wb") as output:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port: int = listening.getsockname()[1]
        number = listening.fileno()
        assert tap.__file__ is not None
        subprocess.Popen(
            [sys.executable, "-I", "-S", tap.__file__, str(number), onward, str(port), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(number,),
            start_new_session=True,
        )
    return port


class WireRelay:
    """A process that carries the frames of both ends.  It ends with the lab; ``close`` ends it before."""

    def __init__(self, ends: tuple[socket.socket, socket.socket], seed: int, log: Path, events: EventStream):
        ours, its = socket.socketpair()
        numbers = [end.fileno() for end in (*ends, its)]
        assert bad_wire.__file__ is not None
        with its, ends[0], ends[1], log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", bad_wire.__file__, *map(str, numbers), str(seed)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=numbers,
                start_new_session=True,
            )
        self._control = ours
        self._log = log
        self._events = events
        self._obeyed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="wire", daemon=True).start()

    def change(self, conditions: WireConditions) -> None:
        """Have the wire be as said; returns when it is."""
        self._order(
            {
                "conditions": {
                    "delay": conditions.delay_ms / 1000,
                    "loss": conditions.loss_percent / 100,
                    "reorder": conditions.reorder_percent / 100,
                    "rate": conditions.bandwidth or 0,
                }
            }
        )

    def cut_after(self, size: int, *, reset: bool) -> None:
        """Let so many bytes of the source's through from now on, and nothing after them."""
        self._order({"cut_after": size, "reset": reset})

    def mend(self) -> None:
        """Let frames through again."""
        self._order({"mend": True})

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    def _order(self, order: Mapping[str, Any]) -> None:
        self._events.emit("wire", source="wire", **order)
        try:
            self._control.sendall(json.dumps(order).encode() + b"\n")
            answer = self._obeyed.get(timeout=patience(OBEY_SECONDS))
        except (OSError, queue.Empty):
            answer = None
        if answer is None:
            raise HostLost("the relay of the migration wire is gone", last_lines=self._last_words())

    def _listen(self) -> None:
        with self._control.makefile("rb") as words:
            try:
                for line in words:
                    said = json.loads(line)
                    if "cut" in said:
                        self._events.emit("wire-cut", source="wire", bytes=said["cut"])
                    else:
                        self._obeyed.put(line)
            except (OSError, ValueError):
                pass  # closed by us, or its end
        self._obeyed.put(None)

    def _last_words(self) -> tuple[str, ...]:
        return tuple(self._log.read_text("utf-8", errors="replace").splitlines()[-20:])
