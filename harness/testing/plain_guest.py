# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU, without libvirt and without a second host: for tests that only look at a guest's memory.

    with PlainGuest.boot(machine, guest) as plain:
        plain.wait_for("quiet")
        plain.monitor.execute("stop")
        walk_memory(plain.memory())

RAM is in files, below /dev/shm; the guest's second serial port is QEMU's standard output,
or, for who wants to speak as well, a socket (:attr:`Machine.port`).
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import GuestLost
from harness.events import Deadline, EventStream
from harness.memory.image import RamImage
from harness.memory.walk import GuestMemory
from harness.migration.memory_map import query_map
from harness.migration.qmp import Monitor, MonitorLoop
from harness.migration.transcript import Transcript
from harness.toolchain import QemuBinary

MIB = 1 << 20
MONITOR = "monitor"


@dataclass(frozen=True)
class PlainMachine:
    """What to boot a guest in."""

    qemu: QemuBinary
    memory: int = 512 * MIB
    nodes: int = 1
    machine: str = "pc"
    cpu: str = "qemu64,+rdrand,+rdseed"
    more: Sequence[str] = ()
    cpus: int | None = None
    port: socket.socket | None = None
    """What the guest's second serial port leads to, instead of QEMU's standard output."""


@dataclass(frozen=True)
class Software:
    """What to boot."""

    kernel: Path
    initrd: Path
    cmdline: str = ""


class PlainGuest:
    """A running guest; see the module."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        monitor: Monitor,
        folder: Path,
        machine: PlainMachine,
        console: Path,
    ) -> None:
        self.process = process
        self.monitor = monitor
        self.folder = folder
        self._machine = machine
        self._console = console
        self._stack = ExitStack()

    @classmethod
    @contextmanager
    def boot(cls, machine: PlainMachine, software: Software, results: Path) -> Iterator[PlainGuest]:
        """Start it; transcript and console stay in ``results``, everything else goes."""
        events, console = EventStream(), results / "console.log"
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="freepage-walk-", dir="/dev/shm"))
            stack.callback(shutil.rmtree, folder)
            command = _command(machine, software, folder, console)
            process = stack.enter_context(_qemu(command, folder, machine.port))
            stack.callback(process.kill)
            loop = stack.enter_context(MonitorLoop())
            transcript = stack.enter_context(Transcript(results / "qmp.jsonl"))
            deadline = Deadline(60, "QEMU's monitor")
            monitor = Monitor.connect(loop, "source", folder / MONITOR, events, transcript, deadline)
            stack.callback(monitor.close)
            guest = cls(process, monitor, folder, machine, console)
            stack.enter_context(guest._stack)
            yield guest

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line of the guest's second serial port that begins with this."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            match = re.match(pattern, raw.decode("ascii", "replace").strip("\r\n"))
            if match:
                return match
        raise GuestLost(f"the guest was gone before it said {pattern!r}", last_lines=self.last_lines())

    def last_lines(self) -> list[str]:
        """The end of the guest's console."""
        return self._console.read_text("utf-8", errors="replace").splitlines()[-20:]

    def ranges(self) -> Mapping[str, list[tuple[int, int, int]]]:
        """(guest address, offset, length) of each piece of each memory file, as QEMU maps it."""
        return query_map(self.monitor, [f"m{node}" for node in range(self._machine.nodes)])

    def memory(self) -> GuestMemory:
        """The guest's memory, through its files."""
        size = self._machine.memory // self._machine.nodes
        return GuestMemory.of(
            (self._stack.enter_context(RamImage.open(self.folder / name, size, name)), ranges)
            for name, ranges in self.ranges().items()
        )


def _qemu(command: Sequence[str], folder: Path, port: socket.socket | None = None) -> subprocess.Popen[bytes]:
    """Start QEMU; its monitor listens before it does, so that nobody has to wait for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(folder / MONITOR))
        listening.listen()
        number = listening.fileno()
        monitor = ["-chardev", f"socket,id=monitor,fd={number},server=on,wait=off"]
        return subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", *command, *monitor, "-mon", "chardev=monitor,mode=control"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(number,) if port is None else (number, port.fileno()),
        )


def _command(machine: PlainMachine, software: Software, folder: Path, console: Path) -> list[str]:
    each = machine.memory // machine.nodes
    command = [str(machine.qemu.path)]
    for place in machine.qemu.firmware:
        command += ["-L", str(place)]
    command += ["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-cpu", machine.cpu]
    command += [
        "-m",
        f"{machine.memory // MIB}M",
        "-smp",
        str(machine.cpus or machine.nodes),
        "-device",
        "vmcoreinfo",
    ]
    options = f"{machine.machine},memory-backend=m0" if machine.nodes == 1 else machine.machine
    command += ["-machine", options]
    for node in range(machine.nodes):
        backend = f"memory-backend-file,id=m{node},size={each},mem-path={folder / f'm{node}'},share=on"
        command += ["-object", backend]
        if machine.nodes > 1:
            command += ["-numa", f"node,nodeid={node},cpus={node},memdev=m{node}"]
    command += ["-kernel", str(software.kernel), "-initrd", str(software.initrd)]
    command += ["-append", f"console=ttyS0 panic=-1 no_timer_check {software.cmdline}"]
    command += ["-serial", f"file:{console}"]
    if machine.port is None:
        return [*command, "-serial", "stdio", *machine.more]
    port = f"socket,id=port,fd={machine.port.fileno()}"
    return [*command, "-chardev", port, "-serial", "chardev:port", *machine.more]
