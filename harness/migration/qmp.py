# SPDX-License-Identifier: GPL-2.0-or-later
"""A second QMP monitor of a QEMU that libvirt drives.

libvirt keeps QEMU's events to itself, resumes no guest while a migration job
runs, and knows nothing of a device's own properties.  Each QEMU of a run
therefore has one more monitor, of ours.  Everything that it says is emitted
into the event stream, under QEMU's own name of the event::

    with MonitorLoop() as loop:
        monitor = Monitor.connect(loop, "source", path, events, transcript, deadline)
        monitor.listen(inbox.put)
        monitor.execute("query-status")

The monitors of one run share one asyncio loop in one thread.  Listeners are
called in that thread and must hand on at once (to a queue): a listener that
called :meth:`Monitor.execute` would wait for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import (
    ConnectError,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)
from qemu.qmp.qmp_client import GreetingError, NegotiationError

from harness.errors import DeadlineExceeded, GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.migration.acting import may_change_machine
from harness.migration.transcript import Transcript

_T = TypeVar("_T")

#: The event that a listener gets when the monitor's other end is gone.
CLOSED = "MONITOR_CLOSED"
#: The event of a command that a QEMU has carried out, and that may have changed its machine.  ``lingers``: it
#: was no command of QMP, and QEMU may come to know of it later.
ACTED = "qmp-acted"


class QemuGone(GuestLost):
    """A QEMU has ended instead of answering."""

    def __init__(self, side: str, command: str) -> None:
        super().__init__(f"the {side} QEMU was gone before it answered {command}")
        self.side = side


class CommandError(MachineryError):
    """QEMU answered a command with an error: its class (CommandNotFound, GenericError) and its words."""

    def __init__(self, message: str, *, kind: str = "GenericError", description: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.description = description or message


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """One event of one QEMU; ``name`` is :data:`CLOSED` when it has gone."""

    side: str
    name: str
    data: Mapping[str, object]
    #: QEMU's own time of it, seconds since 1970; None: it bears none, or is ours.
    at: float | None = field(default=None, compare=False)

    @property
    def source(self) -> str:
        """The name under which the event stream knows this monitor."""
        return f"{self.side}.qmp"


Listener = Callable[[QmpEvent], None]


def translate(side: str, message: Mapping[str, object]) -> QmpEvent:
    """Turn QMP's wire form of an event into ours; a malformed one keeps what it has."""
    data = message.get("data")
    name = str(message.get("event", "?"))
    return QmpEvent(side, name, data if isinstance(data, Mapping) else {}, _time(message.get("timestamp")))


def _time(stamp: object) -> float | None:
    """Seconds since 1970, from QMP's two numbers; QEMU says -1 where it does not know."""
    if not isinstance(stamp, Mapping):
        return None
    seconds, micro = stamp.get("seconds"), stamp.get("microseconds")
    if not isinstance(seconds, int) or not isinstance(micro, int) or seconds < 0:
        return None
    return seconds + micro / 1e6


def _connect(path: Path) -> tuple[socket.socket, int]:
    """A connection to a listening QEMU, and that QEMU's process id."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        connection.close()
        raise
    pid: int = struct.unpack("3i", credentials)[0]
    return connection, pid


def _unreachable(side: str, path: Path, error: Exception) -> GuestLost:
    return GuestLost(f"the {side} QEMU's monitor at {path} does not answer: {error}")


async def _cancel_others() -> None:
    """Cancel every task of the running loop but this one, and see them end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class MonitorLoop:
    """The thread in which the monitors of one run live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)

    def __enter__(self) -> MonitorLoop:
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, _T], seconds: float, what: str) -> _T:
        """Run ``work`` in the loop and wait for it, ``seconds`` at most."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise DeadlineExceeded(f"{what}: not within {seconds:g} s") from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever still waits (for a QEMU that outlives us, say) is told that it ends here;
        # a loop that is closed under its tasks complains about each of them.
        with contextlib.suppress(DeadlineExceeded):
            self.run(_cancel_others(), 5, "ending the monitors' loop")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()


class Monitor:
    """One QEMU's monitor.  Use :meth:`connect`."""

    def __init__(
        self, loop: MonitorLoop, side: str, client: QMPClient, events: EventStream, transcript: Transcript
    ) -> None:
        self.side = side
        #: QEMU's process, as the kernel tells it of the socket's other end.
        self.pid = 0
        self._loop = loop
        self._client = client
        self._events = events
        self._transcript = transcript
        self._listeners: list[Listener] = []
        self._expected_end = False
        self._ending = asyncio.Lock()

    @classmethod
    def connect(
        cls,
        loop: MonitorLoop,
        side: str,
        path: Path,
        events: EventStream,
        transcript: Transcript,
        deadline: Deadline,
    ) -> Monitor:
        """Connect to the monitor that listens at ``path``, and follow its events."""
        while True:
            monitor = cls(loop, side, QMPClient(f"freepage.{side}"), events, transcript)
            try:
                connection, monitor.pid = _connect(path)
            except OSError as error:
                raise _unreachable(side, path, error) from error
            try:
                loop.run(monitor._open(connection), deadline.timeout(30), f"the {side} QEMU's monitor")
            except ConnectError as error:
                if isinstance(error.exc, (GreetingError, NegotiationError)):
                    # An event came before the answer to qmp_capabilities, or, on a connection that follows
                    # another, before the greeting, which QEMU may do and qemu.qmp (0.0.6) does not expect.
                    # QEMU begins anew with a new connection.
                    deadline.check()
                    continue
                raise _unreachable(side, path, error) from error
            return monitor

    async def _open(self, connection: socket.socket) -> None:
        await self._client.connect(connection)
        self._transcript.note(self.side, "greeting", self._greeting())
        # Kept as an attribute: asyncio holds tasks only weakly.
        self._pump = asyncio.create_task(self._follow(), name=f"qmp-{self.side}")

    def _greeting(self) -> object:
        greeting = self._client.greeting
        return greeting._asdict() if greeting is not None else None

    async def _follow(self) -> None:
        end = asyncio.create_task(self._client.runstate_changed())
        while True:
            message = asyncio.create_task(self._client.events.get())
            await asyncio.wait({end, message}, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                self._announce(translate(self.side, message.result()))
                continue
            message.cancel()
            # Events that came together with the end of the connection count.
            for late in self._client.events.clear():
                self._announce(translate(self.side, late))
            await self._disconnect()
            self._announce(QmpEvent(self.side, CLOSED, {"expected": self._expected_end}))
            return

    async def _disconnect(self) -> None:
        """Let go of the connection, whoever of the two ends asks first."""
        async with self._ending:
            if self._client.runstate is not Runstate.IDLE:
                # Raises why the connection ended, if QEMU did it: that is known already.
                with contextlib.suppress(QMPError, EOFError, OSError):
                    await self._client.disconnect()

    def _announce(self, event: QmpEvent) -> None:
        self._transcript.note(self.side, "event", {"event": event.name, "data": event.data})
        self._events.emit(event.name, source=event.source, data=dict(event.data), at=event.at)
        for listener in tuple(self._listeners):
            listener(event)

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with each event from now on, in the loop's thread."""
        self._listeners.append(listener)

    def expect_end(self) -> None:
        """From now on the end of this QEMU is nothing unusual."""
        self._expected_end = True

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        seconds: float = 30,
        at_once: bool = False,
    ) -> object:
        """Run one command and return its answer.

        ``at_once``: out of band, past whatever QEMU's main loop is at; few commands may be.
        """
        return self._loop.run(
            self._execute(command, arguments, at_once), seconds, f"{command} on the {self.side}'s monitor"
        )

    async def _execute(self, command: str, arguments: Mapping[str, object] | None, at_once: bool) -> object:
        word = "exec-oob" if at_once else "execute"
        self._transcript.note(self.side, "execute", {word: command, "arguments": arguments or {}})
        try:
            answer = await self._client.execute(command, dict(arguments) if arguments else None, oob=at_once)
        except ExecuteError as error:
            self._transcript.note(self.side, "error", {"class": error.error_class, "desc": str(error)})
            raise CommandError(
                f"the {self.side} QEMU refused {command}: {error}",
                kind=error.error_class,
                description=str(error),
            ) from error
        except (StateError, ExecInterruptedError) as error:
            raise QemuGone(self.side, command) from error
        self._transcript.note(self.side, "return", answer)
        if may_change_machine(command, arguments):
            self._events.emit(ACTED, source=f"{self.side}.qmp", command=command)
        return answer

    def hand_file(
        self, descriptor: int, command: str, arguments: Mapping[str, object], *, seconds: float = 30
    ) -> object:
        """Run a command that takes a descriptor of ours along: ``getfd``, ``add-fd``; its answer."""
        what = f"{command} on the {self.side}'s monitor"
        return self._loop.run(self._hand_file(descriptor, command, arguments), seconds, what)

    async def _hand_file(self, descriptor: int, command: str, arguments: Mapping[str, object]) -> object:
        # With a blank of JSON's, which QEMU keeps until the command that takes it.
        self._client.send_fd_scm(descriptor)
        return await self._execute(command, arguments, at_once=False)

    def ended(self) -> bool:
        """Whether this QEMU is gone, or goes rather than answer."""
        try:
            self.execute("query-status")
        except QemuGone:
            return True
        except (CommandError, DeadlineExceeded):
            pass
        return False

    def close(self) -> None:
        """Let go of the monitor; QEMU goes on."""
        self._expected_end = True
        with contextlib.suppress(DeadlineExceeded):
            self._loop.run(self._disconnect(), 5, "closing a monitor")
