# SPDX-License-Identifier: GPL-2.0-or-later
"""The program inside a nested machine: runs commands of ours, one after the other.

Python and the harness take seconds to load under emulation, so they are loaded
once; each command is a fork of this process.  What it prints goes out as it
comes.  See :mod:`harness.hosts.nested.wire` for the messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from harness import accel
from harness.hosts.nested.wire import ALIVE_SECONDS, PORT, Lines, encode, pack, unpack

_PORTS: Final = Path("/sys/class/virtio-ports")
_PIECE: Final = 1 << 16

#: What a run needs and would load itself, in each of its processes.
_MODULES: Final = (
    "harness.cli",
    "harness.floor",
    "harness.report.result",
    "harness.report.summary",
    "harness.scenario",
    "harness.session.checking",
    "harness.session.conclude",
    "harness.session.inside",
    "harness.session.judging",
    "harness.session.move",
    "harness.session.run",
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


class Agent:
    """Reads messages from the port, runs what they ask for, one command at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lines = Lines()
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

    def _start(self, message: dict[str, Any]) -> None:
        if self._command is not None:
            raise AssertionError("one command at a time")
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for ours in (pipes[0][1], pipes[1][0], pipes[2][0], self._port, self._woken):
                os.close(ours)  # forked, not executed anew: nothing closes them by itself
            _become([pipes[0][0], pipes[1][1], pipes[2][1]], message)
        for theirs in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(theirs)
        os.set_blocking(pipes[0][1], False)
        outputs = {pipes[1][0]: "out", pipes[2][0]: "err"}
        self._command = _Command(int(message["run"]), pid, pipes[0][1], outputs)

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
        data = os.read(descriptor, _PIECE)
        if data:
            self.say(output=command.number, to=command.outputs[descriptor], data=pack(data))
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


def _become(streams: list[int], message: dict[str, Any]) -> NoReturn:
    """In the fork: be the command."""
    code = 3
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        for target, descriptor in enumerate(streams):
            os.dup2(descriptor, target)
        os.environ.update({str(key): str(value) for key, value in message.get("env", {}).items()})
        for name, text in message.get("files", {}).items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")
        os.chdir(message["cwd"])
        sys.argv = ["freepage", *(str(word) for word in message["argv"])]
        from harness.cli import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
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
    agent = Agent(port)
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
