# SPDX-License-Identifier: GPL-2.0-or-later
"""What serves a guest's devices on its hosts: programs, and sockets that send back what they get."""

from __future__ import annotations

import contextlib
import re
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
from harness.hosts.output_tail import OutputTail
from harness.report.folder import RunFolder
from harness.scenario.devices import HelperProgram

_CHUNK: Final = 4096
#: How libvhost-user's programs, and those in Rust, begin their last word.
_PANIC: Final = re.compile(r"\bPANIC: |\bpanicked at |\bAssertion ")
#: How long a QEMU may take until it listens.
LISTEN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Service:
    """What a program is for: a device (its word, its number) of the QEMU that came as the ``arrival``-th."""

    host: Host
    device: str
    number: int
    helper: HelperProgram
    log: Path
    arrival: int


@dataclass(frozen=True, slots=True)
class _Running:
    """A program that serves, or has served; ``tail`` if it talks more than is kept."""

    service: _Service
    process: subprocess.Popen[bytes]
    tail: OutputTail | None

    def last_line(self) -> str:
        """Of what it has said, once it has ended."""
        text = self.tail.text() if self.tail else self.service.log.read_text("utf-8", "replace")
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        # What panics says so, in the middle of a line that was under way, and then clears up.
        panics = (line[match.start() :] for line in reversed(lines) if (match := _PANIC.search(line)))
        return next(panics, lines[-1] if lines else "")


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
        self._killed: list[_Running] = []
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
                log = self._folder.file(f"{helper.name}-{added.number}-{self._arrivals}.log")
                self._start(_Service(host, device.device, added.number, helper, log, self._arrivals))

    def kill(self, device: str, host: Host) -> None:
        """Kill what serves a device of the newest QEMU on ``host``; returns when it is gone."""
        there = [one for one in self._newest(host) if one.service.device == device]
        if not there:
            raise MachineryError(f"nothing serves {device} on the {host.name}")
        for one in there:
            self._killed.append(one)
            one.process.kill()
            one.process.wait()
            self._events.emit("helper-killed", source=host.name, device=device)

    def unserved(self, host: Host) -> frozenset[str]:
        """Devices of the QEMU on ``host`` whose program a script has killed, by their words.

        Whoever served one for an earlier QEMU of that host is gone with it, and another one has begun.
        """
        return frozenset(one.service.device for one in self._newest(host) if one in self._killed)

    def ended(self, host: Host) -> Mapping[int, str]:
        """Programs that have ended by themselves while the QEMU on ``host`` needs them.

        By their device's number: what they were, how they ended, and their last word.
        """
        return {
            one.service.number: f"{one.service.helper.name}, which serves it, has ended with status "
            f"{one.process.returncode}: {one.last_line() or 'without a word'}"
            for one in self._newest(host)
            if one.process.poll() is not None and one not in self._killed
        }

    def _newest(self, host: Host) -> list[_Running]:
        """Those for the QEMU that came to ``host`` last."""
        there = [one for one in self._running if one.service.host.name == host.name]
        last = max((one.service.arrival for one in there), default=0)
        return [one for one in there if one.service.arrival == last]

    def _start(self, service: _Service) -> None:
        helper = service.helper
        if helper.connects:
            thread = threading.Thread(target=self._start_later, args=(service,), daemon=True)
            self._waiting.append(thread)
            thread.start()
            return
        # It is handed a socket that listens already: QEMU may connect whenever it likes.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(helper.socket))
            listener.listen(1)
            number = listener.fileno()
            self._run(service, [word.format(fd=number) for word in helper.arguments], number)

    def _run(self, service: _Service, arguments: Sequence[str], inherited: int | None) -> None:
        words = [*self._programs[service.helper.name], *arguments]
        self._events.emit("helper", source=service.host.name, command=words)
        tail = OutputTail(service.log.with_suffix(".fifo")) if service.helper.talks else None
        try:
            log = service.log if tail is None else tail.path
            process = service.host.start_program(words, inherited, log)
        except BaseException:
            if tail is not None:
                tail.given_up()
            raise
        if tail is not None:
            tail.begun()
        self._running.append(_Running(service, process, tail))

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

    def _start_later(self, service: _Service) -> None:
        """Once QEMU listens, which waits for the program to go on.

        A poll, since nobody tells; to connect, and see, would be to take the connection that QEMU waits for.
        """
        deadline = Deadline(LISTEN_SECONDS, f"QEMU listening for {service.helper.name}")
        while not service.host.accepts(service.helper.socket):
            if deadline.expired or self._over.wait(0.01):
                # Whoever starts QEMU has the reason why it does not.
                return
        self._run(service, service.helper.arguments, None)

    def _ended(self) -> None:
        self._over.set()
        for thread in self._waiting:
            thread.join()
        for one in self._running:
            one.process.kill()
            one.process.wait()
        for one in self._running:
            if one.tail is not None:
                one.service.log.write_text(one.tail.text(), encoding="utf-8")
