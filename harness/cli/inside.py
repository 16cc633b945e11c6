# SPDX-License-Identifier: GPL-2.0-or-later
"""The program inside a nested machine: runs commands of ours, one after the other.

Python and the harness take seconds to load under emulation, so they are loaded
once; each command is a fork of this process.  What it prints goes out as it
comes.  See :mod:`harness.nested.wire` for the messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from harness import accel
from harness.last_resort import in_words
from harness.nested.wire import ALIVE_SECONDS, PORT, LineBuffer, encode, pack_message, unpack

_PORTS: Final = Path("/sys/class/virtio-ports")
_PIECE: Final = 1 << 16

#: What a run needs and would load itself, in each of its processes.
_MODULES: Final = (
    "harness.cli",
    "harness.verdict.floor",
    "harness.report.result",
    "harness.report.summary",
    "harness.scenario.load",
    "harness.evidence.guest_checks",
    "harness.run.carry_out",
    "harness.run.boot",
    "harness.evidence.gather",
    "harness.run.journey",
    "harness.run.supervise",
    "harness.toolchain",
    "harness.hosts.netns",
    "paramiko",
    "libvirt",
)


def find_port(name: str = PORT, ports: Path = _PORTS) -> Path:
    """The device of the serial port with that name (no udev makes a link here)."""
    for entry in ports.iterdir():
        with contextlib.suppress(OSError):
            if (entry / "name").read_text(encoding="utf-8").strip() == name:
                return Path("/dev", entry.name)
    raise FileNotFoundError(f"no serial port {name}")


@dataclass
class _Command:
    """A command that runs: its process, and our ends of its three streams."""

    number: int
    pid: int
    stdin: int
    outputs: dict[int, str]
    status: int | None = None
    pending: bytearray = field(default_factory=bytearray)
    stdin_ends: bool = False

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal, if it has one, is of another size."""
        if self.stdin >= 0:
            with contextlib.suppress(termios.error):  # it has none
                termios.tcsetwinsize(self.stdin, (rows, columns))


@dataclass(frozen=True, slots=True)
class _Streams:
    """A command's input, output and errors: the ends that are ours, and its own three."""

    stdin: int
    outputs: dict[int, str]
    theirs: tuple[int, int, int]


def _pipes() -> _Streams:
    (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = (
        os.pipe2(os.O_CLOEXEC) for _ in range(3)
    )
    return _Streams(to_stdin, {from_stdout: "out", from_stderr: "err"}, (stdin, stdout, stderr))


def _terminal(rows: int, columns: int) -> _Streams:
    """One terminal for all three."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (rows, columns))
    return _Streams(os.dup(ours), {ours: "out"}, (theirs, theirs, theirs))


class MachineAgent:
    """Reads messages from the port, runs what they ask for, one command at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lines = LineBuffer()
        self._command: _Command | None = None
        self._alive = 0
        self._next_alive = 0.0
        # A child's end wakes the loop.
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def say(self, **message: object) -> None:
        """Send one message."""
        data = memoryview(encode(message))
        while data:
            data = data[os.write(self._port, data) :]

    def serve(self) -> None:
        """Until the other end closes the port."""
        while True:
            command = self._command
            outputs = list(command.outputs) if command else []
            feeding = [command.stdin] if command and command.stdin >= 0 and command.pending else []
            timeout = max(0.0, self._next_alive - time.monotonic())
            ready, writable, _ = select.select([self._port, self._woken, *outputs], feeding, [], timeout)
            if self._next_alive <= time.monotonic():
                self._say_alive()
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, _PIECE)
            for descriptor in outputs:
                if descriptor in ready:
                    self._pass_on(descriptor)
            if writable:
                self._feed()
            if self._port in ready:
                data = os.read(self._port, _PIECE)
                if not data:
                    return
                for message in self._lines.feed(data):
                    self._do(message)
            self._look_after()

    def _say_alive(self) -> None:
        self._alive += 1
        self.say(alive=self._alive)
        self._next_alive = time.monotonic() + ALIVE_SECONDS

    def _do(self, message: dict[str, Any]) -> None:
        command = self._command
        if "run" in message:
            self._start(message)
        elif "signal" in message and command is not None and command.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command.pid, int(message["signal"]))
        elif "input" in message and command is not None and message["input"] == command.number:
            data = unpack(message["data"])
            command.pending += data
            command.stdin_ends |= not data
            self._feed()
        elif "window" in message and command is not None:
            command.resize(*map(int, message["window"]))

    def _start(self, message: dict[str, Any]) -> None:
        if self._command is not None:
            raise AssertionError("one command at a time")
        streams = _terminal(*map(int, message["terminal"])) if message.get("terminal") else _pipes()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for ours in (streams.stdin, *streams.outputs, self._port, self._woken):
                os.close(ours)  # forked, not executed anew: nothing closes them by itself
            _become(streams.theirs, message)
        for theirs in set(streams.theirs):
            os.close(theirs)
        os.set_blocking(streams.stdin, False)
        self._command = _Command(int(message["run"]), pid, streams.stdin, streams.outputs)

    def _feed(self) -> None:
        command = self._command
        if command is None or command.stdin < 0:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                while command.pending:
                    del command.pending[: os.write(command.stdin, command.pending)]
        except BrokenPipeError:
            command.pending.clear()
            command.stdin_ends = True
        if command.stdin_ends and not command.pending:
            os.close(command.stdin)
            command.stdin = -1

    def _pass_on(self, descriptor: int) -> None:
        command = self._command
        assert command is not None
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # of a terminal whose other end is closed: EIO
        if data:
            self.say(output=command.number, to=command.outputs[descriptor], data=pack_message(data))
        else:
            os.close(descriptor)
            del command.outputs[descriptor]

    def _look_after(self) -> None:
        """Reap; when the command has ended and its output is out, say so."""
        command = self._command
        if command is None:
            return
        if command.status is None:
            pid, status = os.waitpid(command.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                command.status = code if code >= 0 else 128 - code
        if command.status is not None and not command.outputs:
            if command.stdin >= 0:
                os.close(command.stdin)
            self._command = None
            self.say(ended=command.number, status=command.status)


def _become(streams: Sequence[int], message: dict[str, Any]) -> NoReturn:
    """In the fork: be the command."""
    code = 3
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        for target, descriptor in enumerate(streams):
            os.dup2(descriptor, target)
        if message.get("terminal"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C on it is a signal
        os.environ.update({str(key): str(value) for key, value in message.get("env", {}).items()})
        for name, text in message.get("files", {}).items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")
        os.chdir(message["cwd"])
        sys.argv = ["freepage", *(str(word) for word in message["argv"])]
        from harness.cli import main

        main()
    except SystemExit as error:
        # 1 is a verdict, and Python's own status for sys.exit("words").
        code = error.code if isinstance(error.code, int) else 3 * bool(error.code)
    except BaseException as error:
        print(f"freepage: {in_words(error).render()}", file=sys.stderr)  # noqa: T201 - nobody above us will
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """As the nested machine's only program."""
    # Left open by nobody else: commands are not to inherit it.
    port = os.open(find_port(), os.O_RDWR | os.O_CLOEXEC)
    flags = fcntl.fcntl(port, fcntl.F_GETFL)
    fcntl.fcntl(port, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    agent = MachineAgent(port)
    problem = accel.device_problem()
    agent.say(hello={"kvm": problem or "", "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)})
    if problem is None:
        for name in _MODULES:
            agent.say(alive=0)
            # What is not there is the command's to complain about.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    agent.serve()


if __name__ == "__main__":
    main()
