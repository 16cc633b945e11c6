# SPDX-License-Identifier: GPL-2.0-or-later
"""How the lab's detached processes ended, as its init tells it.

libvirt detaches the QEMUs that it starts, so nobody of ours is their parent.  In
a lab they become children of its PID 1 (:mod:`harness.hosts.enter`), which reaps
them and writes a line for each into a pipe: process id, the exit status as
:mod:`subprocess` gives it (-N: ended by signal N), whether the kernel wrote a core (1 or 0), and
what the kernel calls the process: the first 15 characters of its program's name, as a rule.

    with Obituaries(events):        # in the lab's worker
        ...                         # emits process-ended with pid, returncode, core and name
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from pathlib import Path
from typing import Final

from harness.events import EventStream

#: A line is shorter than this; what fits into PIPE_BUF is written whole or not at all.
_CHUNK: Final = 4096


class _Reader:
    """The reading end in the worker; set once, between two forks."""

    descriptor: int | None = None


def open_pipe() -> int:
    """In the lab's init, before it forks the worker: the end to write to.  Never blocks."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _Reader.descriptor = reading
    return writing


def close_reader() -> None:
    """In the lab's init, after the fork: only the worker reads."""
    if _Reader.descriptor is not None:
        os.close(_Reader.descriptor)
        _Reader.descriptor = None


def write(writing: int, pid: int, returncode: int, *, core: bool = False, name: str = "") -> None:
    """In the lab's init: a process was reaped.  Nobody waits for a worker that does not read."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    with contextlib.suppress(OSError):
        os.write(writing, f"{pid} {returncode} {core:d} {plain}\n".encode("ascii", "replace"))


def parse(text: str) -> tuple[tuple[int, int, bool, str], ...]:
    """Process ids, return codes, whether there is a core, and names, of whole lines."""
    rows = (line.split(" ", 3) for line in text.splitlines())
    return tuple((int(row[0]), int(row[1]), row[2] == "1", row[3]) for row in rows if len(row) == 4)


def next_dead() -> tuple[int, str]:
    """In the lab's init: one of its children that has ended and is not reaped yet, and its name.

    0: there is none.  Raises :class:`ChildProcessError` if there are no children at all.
    """
    dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if dead is None:
        return 0, ""
    try:
        name = Path(f"/proc/{dead.si_pid}/comm").read_text("utf-8", "replace").rstrip("\n")
    except OSError:
        name = ""
    return dead.si_pid, name


class Obituaries:
    """Context manager: emits ``process-ended`` for each process that the lab's init reaps."""

    def __init__(self, events: EventStream, descriptor: int | None = None) -> None:
        self._events = events
        self._reading = _Reader.descriptor if descriptor is None else descriptor
        self._stop_reading, self._stop_writing = os.pipe()
        self._thread = threading.Thread(target=self._read, name="obituaries", daemon=True)

    def __enter__(self) -> Obituaries:
        if self._reading is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A byte, and not the pipe's end: who was forked meanwhile holds it open as well.
        os.write(self._stop_writing, b".")
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._stop_writing)
        os.close(self._stop_reading)

    def _read(self) -> None:
        assert self._reading is not None
        rest = ""
        while True:
            ready, _, _ = select.select([self._reading, self._stop_reading], [], [])
            if self._reading not in ready:
                return
            data = os.read(self._reading, _CHUNK)
            if not data:
                return
            whole, _, rest = (rest + data.decode("ascii")).rpartition("\n")
            for pid, returncode, core, name in parse(whole):
                at = time.time()
                self._events.emit(
                    "process-ended", pid=pid, returncode=returncode, core=core, name=name, at=at
                )
