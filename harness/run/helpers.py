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
class _Running:
    """A program, the device that it serves, and for which QEMU of which host."""

    name: str
    device: str
    host: str
    arrival: int
    process: subprocess.Popen[bytes]
    log: Path
    tail: OutputTail | None

    def last_line(self) -> str:
        """Of what it has said, once it has ended."""
        text = self.tail.text() if self.tail else self.log.read_text(encoding="utf-8", errors="replace")
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
                self._start(host, device.device, helper)

    def kill(self, device: str, host: Host) -> None:
        """Kill what serves a device of the newest QEMU on ``host``; returns when it is gone."""
        there = [one for one in self._running if (one.device, one.host) == (device, host.name)]
        last = max((one.arrival for one in there), default=None)
        if last is None:
            raise MachineryError(f"nothing serves {device} on the {host.name}")
        for one in there:
            if one.arrival == last:
                self._killed.append(one)
                one.process.kill()
                one.process.wait()
                self._events.emit("helper-killed", source=host.name, device=device)

    def unserved(self, host: Host) -> frozenset[str]:
        """Devices of the QEMU on ``host`` whose program a script has killed, by their words.

        Whoever served one for an earlier QEMU of that host is gone with it, and another one has begun.
        """
        return frozenset(one.device for one in self._newest(host) if one in self._killed)

    def ended(self, host: Host) -> Mapping[str, str]:
        """Programs that have ended by themselves while the QEMU on ``host`` needs them.

        By their device's word: what they were, how they ended, and their last word.
        """
        return {
            one.device: f"{one.name}, which serves it, has ended with status "
            f"{one.process.returncode}: {one.last_line() or 'without a word'}"
            for one in self._newest(host)
            if one.process.poll() is not None and one not in self._killed
        }

    def _newest(self, host: Host) -> list[_Running]:
        """Those for the QEMU that came to ``host`` last."""
        there = [one for one in self._running if one.host == host.name]
        last = max((one.arrival for one in there), default=0)
        return [one for one in there if one.arrival == last]

    def _start(self, host: Host, device: str, helper: HelperProgram) -> None:
        log = self._folder.file(f"{helper.name}-{self._arrivals}.log")
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
            self._run(host, device, helper, words, number, log, self._arrivals)

    def _run(
        self,
        host: Host,
        device: str,
        helper: HelperProgram,
        words: Sequence[str],
        inherited: int | None,
        log: Path,
        arrival: int,
    ) -> None:
        self._events.emit("helper", source=host.name, command=list(words))
        last = OutputTail(log.with_suffix(".fifo")) if helper.talks else None
        try:
            process = host.start_program(words, inherited, log if last is None else last.path)
        except BaseException:
            if last is not None:
                last.given_up()
            raise
        if last is not None:
            last.begun()
        self._running.append(_Running(helper.name, device, host.name, arrival, process, log, last))

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
        self._run(host, device, helper, words, None, log, arrival)

    def _ended(self) -> None:
        self._over.set()
        for thread in self._waiting:
            thread.join()
        for one in self._running:
            one.process.kill()
            one.process.wait()
            if one.tail is not None:
                one.log.write_text(one.tail.text(), encoding="utf-8")
