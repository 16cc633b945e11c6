# SPDX-License-Identifier: GPL-2.0-or-later
"""What serves a guest's devices on its hosts: programs, and sockets that send back what they get."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.events import Deadline, EventStream
from harness.guest.devices import ScenarioDevice
from harness.guest.ports import PortOwner
from harness.hosts.interface import Host
from harness.report.folder import RunFolder
from harness.scenario.devices import HelperProgram

_CHUNK: Final = 4096
#: How long a QEMU may take until it listens.
LISTEN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A program, the device that it serves, and for which QEMU of which host."""

    device: str
    host: str
    arrival: int
    process: subprocess.Popen[bytes]


class DeviceHelpers(PortOwner):
    """Context manager: they serve while it is entered.

    ``programs``: the words that start each of the programs, by its name.
    """

    def __init__(self, programs: Mapping[str, Sequence[str]], folder: RunFolder, events: EventStream) -> None:
        super().__init__("helpers")
        self._programs = programs
        self._folder = folder
        self._events = events
        self._running: list[_Running] = []
        self._arrivals = 0
        self._waiting: list[threading.Thread] = []
        self._over = threading.Event()

    def arrive(self, host: Host, devices: Sequence[ScenarioDevice]) -> None:
        """A new QEMU is about to start on ``host``: what its devices need is there when this returns."""
        self._arrivals += 1
        for added in devices:
            device, context = added.device, added.context
            if self._arrivals == 1:
                context.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
                device.provide(context)
            device.make_ready(context, first=self._arrivals == 1)
            for path in device.echoes(context):
                self._ports.listen(path, self._echo)
            for helper in device.helpers(context):
                self._start(host, device.device, helper)

    def kill(self, device: str, host: Host) -> None:
        """Kill what serves a device of the newest QEMU on ``host``; returns when it is gone."""
        there = [one for one in self._running if (one.device, one.host) == (device, host.name)]
        last = max((one.arrival for one in there), default=None)
        if last is None:
            raise MachineryError(f"nothing serves {device} on the {host.name}")
        for one in there:
            if one.arrival == last:
                one.process.kill()
                one.process.wait()
                self._events.emit("helper-killed", source=host.name, device=device)

    def unserved(self, host: Host) -> frozenset[str]:
        """Devices of the QEMU on ``host`` that nobody serves any more, by their words.

        Whoever served one for an earlier QEMU of that host is gone with it, and another one has begun.
        """
        there = [one for one in self._running if one.host == host.name]
        return frozenset(one.device for one in there if one.process.poll() is not None) - frozenset(
            one.device for one in there if one.process.poll() is None
        )

    def _start(self, host: Host, device: str, helper: HelperProgram) -> None:
        log = Path(os.devnull) if helper.talks else self._folder.file(f"{helper.name}-{self._arrivals}.log")
        if helper.connects:
            thread = threading.Thread(
                target=self._start_later, args=(host, device, helper, log, self._arrivals), daemon=True
            )
            self._waiting.append(thread)
            thread.start()
            return
        # It is handed a socket that listens already: QEMU may connect whenever it likes.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(helper.socket))
            listener.listen(1)
            number = listener.fileno()
            words = [*self._programs[helper.name], *(word.format(fd=number) for word in helper.arguments)]
            process = host.start_program(words, number, log)
            self._running.append(_Running(device, host.name, self._arrivals, process))
            self._events.emit("helper", source=host.name, command=words)

    def _echo(self, connection: socket.socket) -> None:
        connection.setblocking(False)

        def read() -> None:
            data = b""
            with contextlib.suppress(BlockingIOError, OSError):
                data = connection.recv(_CHUNK)
            if not data:
                self._ports.forget(connection)
                return
            # What does not fit is lost: a guest that sends more than it reads is none of ours.
            with contextlib.suppress(OSError):
                connection.send(data.upper())

        self._ports.watch(connection, read)

    def _start_later(self, host: Host, device: str, helper: HelperProgram, log: Path, arrival: int) -> None:
        """Once QEMU listens, which waits for the program to go on.

        A poll, since nobody tells; to connect, and see, would be to take the connection that QEMU waits for.
        """
        deadline = Deadline(LISTEN_SECONDS, f"QEMU listening for {helper.name}")
        while not host.accepts(helper.socket):
            if deadline.expired or self._over.wait(0.01):
                # Whoever starts QEMU has the reason why it does not.
                return
        words = [*self._programs[helper.name], *helper.arguments]
        self._events.emit("helper", source=host.name, command=words)
        process = host.start_program(words, None, log)
        self._running.append(_Running(device, host.name, arrival, process))

    def _ended(self) -> None:
        self._over.set()
        for thread in self._waiting:
            thread.join()
        for one in self._running:
            one.process.kill()
            one.process.wait()
