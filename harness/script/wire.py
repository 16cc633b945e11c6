# SPDX-License-Identifier: GPL-2.0-or-later
"""What the source's bytes go through: taken away, and until the source has noticed.

No event tells that a migration blocks in a write; the kernel does.  Its thread is
in one and the same system call, and what it has sent does not change.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from harness.arch import HOST, SystemCalls
from harness.events import Deadline
from harness.migration.qmp import Monitor
from harness.scenario.wire import WireConditions
from harness.script.closed_window import ClosedWindow
from harness.script.qemus import Qemus

#: How long a source with nobody to send to may take until it blocks.
BLOCK_SECONDS: Final = 120.0
#: How long QEMU may take to answer meanwhile.
_ANSWER_SECONDS: Final = 60.0

#: The kernel's lists of connections.
_TCP: Final = ("tcp", "tcp6")

#: What QEMU calls the thread that migrates, in newer and in older series.
_THREADS: Final = ("mig/src/main", "live_migration")

#: The operation of futex that is a semaphore's wait (a mutex has FUTEX_WAIT), and how to read it.
_WAIT_BITSET: Final = 9
_FUTEX_COMMAND: Final = 0x7F


def waits_for_room(call: str, calls: SystemCalls = HOST.system_calls) -> bool:
    """Whether a thread waits for its destination, or for another that does, as long as it takes.

    ``call``: /proc/PID/task/TID/syscall; a number, and the arguments of the call.
    ``calls``: the numbers of this machine's system calls.
    """
    number, *arguments = call.split()
    if number != str(calls.futex):
        # Where QEMU's migration thread waits for a socket.
        return number in {str(waits) for waits in (calls.sendmsg, calls.poll, calls.ppoll)}
    # With multifd it waits for a channel's thread, which waits for the socket.
    # A wait with a time limit is for the bandwidth limit's next window.
    return int(arguments[1], 16) & _FUTEX_COMMAND == _WAIT_BITSET and int(arguments[3], 16) == 0


class Target(Protocol):
    """The host that the guest goes to, as far as its network is concerned."""

    def set_wire(self, *, up: bool) -> None:
        """Plug the migration network in or out."""

    def change_wire(self, conditions: WireConditions) -> None:
        """Have the migration network be as said."""

    def cut_wire(self, size: int, *, reset: bool) -> None:
        """Let so many bytes more through the migration network from the source."""


class Wire:
    """The network between the hosts, and the destination's QEMU that reads from it."""

    def __init__(self, qemus: Qemus, target: Target) -> None:
        self._qemus = qemus
        self._target = target
        #: A QEMU that was stopped to read no more.
        self._stopped: Monitor | None = None
        self._down = False

    def cut(self) -> None:
        """Take the network between the hosts down."""
        self._target.set_wire(up=False)
        self._down = True

    def change(self, conditions: WireConditions) -> None:
        """Have the network be as it says from now on."""
        self._target.change_wire(conditions)

    def cut_after(self, size: int, *, reset: bool) -> None:
        """Let ``size`` more bytes through from the source, and nothing after them."""
        self._target.cut_wire(size, reset=reset)

    def stop_reader(self) -> None:
        """Stop the destination's QEMU; returns when nothing makes room for the source any more."""
        reader = self._qemus.destination
        os.kill(reader.pid, signal.SIGSTOP)
        self._stopped = reader
        self._wait_for_closed_window()

    def mend(self) -> None:
        """Undo whichever of the two was done."""
        if self._stopped is not None:
            os.kill(self._stopped.pid, signal.SIGCONT)
            self._stopped = None
        else:
            self._target.set_wire(up=True)
            self._down = False

    @property
    def cut_off(self) -> bool:
        """Whether nothing goes through: the network is down, or its reader stands."""
        return self._down or self._stopped is not None

    def wait_until_blocked(self) -> None:
        """Return when the migration's thread waits for a socket, which takes no more."""
        deadline = Deadline(BLOCK_SECONDS, "a source that blocks in a write")
        before = ""
        while True:
            now = self._blocked()
            if now and now == before:
                return
            before = now
            deadline.check()
            # Any question that takes QEMU's main loop a turn.
            self._ask_transferred()

    def _wait_for_closed_window(self) -> None:
        """Until the source's TCP has been told, and told again, that its receiver takes no more.

        From then on nothing makes room: a thread that waits for its socket now waits for good,
        and not for an acknowledgement that is on its way.
        """
        deadline = Deadline(BLOCK_SECONDS, "a destination whose window is closed")
        connections = Path(f"/proc/{self._qemus.source.pid}/net")
        window = ClosedWindow()
        while not window.stays_closed("".join((connections / name).read_text("ascii") for name in _TCP)):
            deadline.check()
            self._ask_transferred()

    def _blocked(self) -> str:
        """What tells that the thread stands still; empty while it does not."""
        for task in Path(f"/proc/{self._qemus.source.pid}/task").iterdir():
            name = (task / "comm").read_text(encoding="ascii", errors="replace").strip()
            if name in _THREADS:
                call = (task / "syscall").read_text(encoding="ascii")
                status = (task / "status").read_text(encoding="utf-8", errors="replace")
                switches = status.partition("voluntary_ctxt_switches:")[2].split()[0]
                return f"{switches} {self._ask_transferred()}" if waits_for_room(call) else ""
        return ""

    def _ask_transferred(self) -> int:
        answer = self._qemus.source.execute("query-migrate", seconds=_ANSWER_SECONDS)
        ram = answer.get("ram") if isinstance(answer, Mapping) else None
        sent = ram.get("transferred") if isinstance(ram, Mapping) else None
        return sent if isinstance(sent, int) else 0
