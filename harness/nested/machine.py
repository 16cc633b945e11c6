# SPDX-License-Identifier: GPL-2.0-or-later
"""The nested machine: boots, runs commands of ours one after the other, and is gone with its owner.

::

    with NestedMachine(parts, MachineSpec("kvm-in-tcg", memory, shares), events) as machine:
        status = machine.run(["run", "freed", "--accel", "kvm"], cwd=Path.cwd())
        again = machine.run(["run", "churn", "--accel", "kvm"], cwd=Path.cwd())

QEMU is a child of this process and has its death signal: whatever ends the
owner ends the machine, and nothing of it is on disk.  A machine that panics,
hangs or dies in the middle of a command is a :class:`GuestLost` with the last
lines of its console, whatever the command had said before.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from harness.accel import CHAIN_VARIABLE
from harness.arch import HOST
from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.nested.inquest import hold_inquest
from harness.nested.keyboard import Keyboard
from harness.nested.parts import Parts
from harness.nested.wire import PORT, LineBuffer, MachineWireError, encode, pack_message, unpack
from harness.toolchain.run import search_path
from harness.toolchain.sources import installation
from harness.toolchain.system_packages import how_to_install

Chain: TypeAlias = Literal["kvm-in-tcg", "kvm-in-kvm"]

#: From QEMU's start to the agent's first word; twenty seconds on quiet cores.
BOOT_SECONDS: Final = 300.0
#: The agent speaks every two seconds.  A machine that is silent for so long hangs.
SILENCE_SECONDS: Final = 180.0

#: What the machine itself needs, beside the guests that run in it.
OWN_MEMORY: Final = 1536 << 20

#: Folders that the machine has for itself: what this host has there is not seen.
OWN_FOLDERS: Final = tuple(
    Path("/", name) for name in ("dev", "proc", "sys", "run", "var/cache", "var/log", "var/tmp")
)
#: The one of them for what is temporary: what is this host's comes by 9p, where no socket can be made.
_TEMPORARY: Final = Path("/", "var", "tmp")

_CPUS: Final[Mapping[Chain, tuple[str, ...]]] = {
    "kvm-in-tcg": ("-accel", "tcg,thread=multi", "-cpu", HOST.board.nesting_cpu),
    "kvm-in-kvm": ("-accel", "kvm", "-cpu", "host"),
}
_TAIL: Final = 25
_PANIC: Final = "Kernel panic - not syncing"
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder of this host that the machine has at the same place; its own root is otherwise read only."""

    path: Path
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Tap:
    """A network for the machine, which else has none: ``eth0`` inside, an open tap of this host's outside."""

    descriptor: int
    mac: str


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What kind of machine: its accelerator, its memory in bytes, what of this host it may write.

    ``services``: lines for a shell, before the agent starts; the machine ends if one of them fails.
    """

    chain: Chain
    memory: int
    shares: tuple[SharedFolder, ...] = ()
    tap: Tap | None = None
    services: tuple[str, ...] = ()

    @property
    def vcpus(self) -> int:
        """As many as this host has, and not more than the few that a run can use."""
        return max(2, min(4, len(os.sched_getaffinity(0))))


def machine_command(parts: Parts, spec: MachineSpec, console: int, control: int, monitor: int) -> list[str]:
    """QEMU's command line; ``console``, ``control`` and ``monitor`` are descriptors that it inherits."""
    words = [str(parts.qemu), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    words += ["-machine", "q35,usb=off,vmport=off", *_CPUS[spec.chain]]
    words += ["-smp", str(spec.vcpus), "-m", f"{spec.memory >> 20}M"]
    words += ["-kernel", str(parts.kernel), "-initrd", str(parts.initrd)]
    words += ["-append", kernel_arguments(parts, spec)]
    words += ["-add-fd", f"fd={console},set=1", "-chardev", "file,id=console,path=/dev/fdset/1,append=on"]
    words += ["-serial", "chardev:console"]
    words += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
    words += ["-chardev", f"socket,id=control,fd={control}"]
    words += ["-device", f"virtserialport,name={PORT},chardev=control"]
    words += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
    for name in ("stdin", "stdout", "stderr", "dev_stdout", "dev_stderr"):
        # virtme-ng's init runs its script with these; ours speaks on the port above.
        words += [
            "-chardev",
            f"null,id={name}",
            "-device",
            f"virtserialport,name=virtme.{name},chardev={name}",
        ]
    words += _folder("root", Path("/"), writable=False)
    for number, share in enumerate(spec.shares):
        words += _folder(f"share{number}", share.path, writable=share.writable)
    if spec.tap is not None:
        words += ["-netdev", f"tap,id=net,fd={spec.tap.descriptor}"]
        words += ["-device", f"virtio-net-pci,netdev=net,mac={spec.tap.mac},romfile="]
    return words


def _folder(tag: str, path: Path, *, writable: bool) -> list[str]:
    # An option's value has its commas doubled.
    local = f"local,id={tag},path={str(path).replace(',', ',,')},security_model=none,multidevs=remap"
    return [
        *("-fsdev", local + ("" if writable else ",readonly=on")),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def kernel_arguments(parts: Parts, spec: MachineSpec) -> str:
    """The kernel's command line: short output, no mitigations that would cost emulation dear."""
    script = base64.b64encode(start_script(spec.shares, spec.services).encode()).decode()
    words = [
        f"console={HOST.board.console}",
        "loglevel=4",
        "panic=-1",
        "oops=panic",
        "mitigations=off",
        "audit=0",
        "apparmor=0",
    ]
    # Tests of clocks against each other that emulation fails for the wrong reasons.
    words += ["tsc=reliable", "no_timer_check", "nowatchdog"]
    # The addresses of a machine that hangs are to be found in its kernel's System.map.
    words += ["nokaslr"]
    words += [
        "virtme_hostname=nested",
        f"virtme_console={HOST.board.console}",
        "virtme_root_user=1",
        "nr_open=1048576",
    ]
    return " ".join([*words, f"virtme.exec=`{script}`", f"init={parts.init}"])


def start_script(shares: Sequence[SharedFolder], services: Sequence[str] = ()) -> str:
    """What virtme-ng's init runs: mounts the shares, starts services, becomes the agent."""
    lines = [f"exec >/dev/{HOST.board.console} 2>&1 </dev/null", "set -e"]
    for number, share in enumerate(shares):
        place, how = shlex.quote(str(share.path)), "rw" if share.writable else "ro,cache=loose"
        options = f"{how},version=9p2000.L,trans=virtio,msize=524288,access=any"
        lines += [f"mkdir -p {place}", f"mount -t 9p -o {options} share{number} {place}"]
    # virtme-ng's init leaves these folders empty; libvirt's packages had made theirs there.
    lines.append("mkdir -p /var/cache/libvirt /var/log/libvirt")
    lines += services
    lines.append("export OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1")
    # The code of this process, whatever else the interpreter would find first: both sides speak one language.
    lines.append(f"export PYTHONPATH={shlex.quote(str(installation()))}")
    lines.append(f"exec {shlex.join([sys.executable, '-P', '-m', 'harness.cli.inside'])}")
    return "\n".join(lines) + "\n"


class NestedMachine:
    """Context manager: the machine runs while it is entered.  Enter it in the main thread."""

    def __init__(
        self, parts: Parts, spec: MachineSpec, events: EventStream, boot_seconds: float = BOOT_SECONDS
    ) -> None:
        self._parts = parts
        self._spec = spec
        self._boot_seconds = boot_seconds
        self._events = events
        self._stack = contextlib.ExitStack()
        self._lines = LineBuffer()
        self._commands = 0
        self._console = -1
        self._command: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._monitor: socket.socket | None = None
        self._inquest = ""

    @property
    def command(self) -> str:
        """QEMU's command line, to be read."""
        return shlex.join(self._command)

    @property
    def spec(self) -> MachineSpec:
        """What the machine was made from."""
        return self._spec

    def __enter__(self) -> Self:
        # The death signal comes when the thread ends that has started QEMU.
        assert threading.current_thread() is threading.main_thread()
        with contextlib.ExitStack() as stack:
            stack.push(self._stack)
            self._start()
            with self._events.step(
                "nested-machine", chain=self._spec.chain, qemu=self._parts.qemu_version
            ) as step:
                hello = self._hello(Deadline(self._boot_seconds, "the nested machine's first word"))
                step.note(uptime_s=hello.get("uptime"))
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the machine, at once: there is nothing in it that has to be put away."""
        self._stack.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        out: Callable[[bytes], None] | None = None,
        err: Callable[[bytes], None] | None = None,
        keyboard: Keyboard | None = None,
    ) -> int:
        """Run ``freepage ARGV`` inside; what it prints is handed on as it comes.  Returns its exit status.

        ``files`` are written inside before it starts: text by absolute path.
        ``out`` and ``err`` take its output; by default it goes to this process's own.
        ``keyboard`` is what it reads, by default nothing; on a terminal, all it says is ``out``.
        A KeyboardInterrupt is handed on as SIGINT once, and its end awaited.

        Raises :class:`GuestLost` when the machine is lost.
        """
        self._commands += 1
        number = self._commands
        sinks = {"out": out or _to(1), "err": err or _to(2)}
        variables = {CHAIN_VARIABLE: self._spec.chain, "TMPDIR": str(_TEMPORARY), **(env or {})}
        terminal = None if keyboard is None else keyboard.size()
        self._send(
            run=number,
            argv=list(argv),
            cwd=str(cwd),
            env=variables,
            files=dict(files or {}),
            terminal=terminal,
        )
        if keyboard is None:
            self._send(input=number, data=pack_message(b""))
        interrupted = False
        while True:
            try:
                deadline = Deadline(SILENCE_SECONDS, "the nested machine's next word")
                if keyboard is not None:
                    self._type(keyboard, number, deadline)
                for message in self._receive(deadline):
                    if message.get("output") == number:
                        sinks[message["to"]](unpack(message["data"]))
                    elif message.get("ended") == number:
                        return int(message["status"])
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self._send(signal=int(signal.SIGINT))

    def console(self) -> str:
        """All that the machine's kernel and init have printed so far."""
        size = os.fstat(self._console).st_size if self._console >= 0 else 0
        return os.pread(self._console, size, 0).decode("utf-8", "replace") if size else ""

    @property
    def inquest(self) -> str:
        """What was found in a machine that said nothing any more: its CPUs, QEMU's threads; else nothing."""
        return self._inquest

    # --- the machine

    def _start(self) -> None:
        self._console = os.memfd_create("nested-console", os.MFD_CLOEXEC)
        self._stack.callback(self._close_console)
        ours, theirs = socket.socketpair()
        self._control = self._stack.enter_context(ours)
        asked, asking = socket.socketpair()
        self._monitor = self._stack.enter_context(asked)
        # For QEMU opened once more: a descriptor that it is given must be for writing only.
        writing = os.open(f"/proc/self/fd/{self._console}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._stack.callback(os.close, writing)
        with theirs, asking:
            inherited = (writing, theirs.fileno(), asking.fileno())
            self._command = machine_command(self._parts, self._spec, *inherited)
            taps = () if self._spec.tap is None else (self._spec.tap.descriptor,)
            setpriv = shutil.which("setpriv", path=search_path())
            if setpriv is None:
                raise MachineryError("the program 'setpriv' is missing", hint=how_to_install("util-linux"))
            self._events.emit("nested-command", command=self.command)
            self._process = subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", "--", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=(*inherited, *taps),
                start_new_session=True,  # Ctrl-C comes to us, and is handed on once
            )
        self._stack.callback(_end, self._process)

    def _close_console(self) -> None:
        os.close(self._console)
        self._console = -1

    def _hello(self, deadline: Deadline) -> dict[str, Any]:
        while True:
            for message in self._receive(deadline):
                if isinstance(message.get("hello"), dict):
                    hello: dict[str, Any] = message["hello"]
                    if hello.get("kvm"):
                        raise self._lost(f"the nested machine has no KVM: {hello['kvm']}")
                    return hello

    def _send(self, **message: object) -> None:
        assert self._control is not None
        try:
            self._control.sendall(encode(message))
        except OSError:
            raise self._lost("the nested machine is gone") from None

    def _type(self, keyboard: Keyboard, number: int, deadline: Deadline) -> None:
        """Hand on what is typed until the machine says something; it does every few seconds."""
        assert self._control is not None
        while True:
            if (size := keyboard.resized()) is not None:
                self._send(window=size)
            sources: list[socket.socket | int] = [self._control, *keyboard.listening]
            ready, _, _ = select.select(sources, [], [], max(deadline.remaining(), 0))
            if not ready or self._control in ready:
                return
            self._send(input=number, data=pack_message(keyboard.read()))

    def _receive(self, deadline: Deadline) -> Iterator[dict[str, Any]]:
        """The messages that come next, at least one."""
        assert self._control is not None
        while True:
            ready, _, _ = select.select([self._control], [], [], max(deadline.remaining(), 0))
            if not ready:
                raise self._silent(f"{deadline.what}: not within {deadline.seconds:g} s")
            data = b""
            with contextlib.suppress(ConnectionError):
                data = self._control.recv(_PIECE)
            if not data:
                raise self._lost("the nested machine has ended" + self._status())
            try:
                messages = list(self._lines.feed(data))
            except MachineWireError as error:
                raise self._lost(f"the nested machine's agent is confused: {error}") from error
            if messages:
                yield from messages
                return

    def _status(self) -> str:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(timeout=5)
            return f" (QEMU's exit status {status})"
        return ""

    def _silent(self, message: str) -> GuestLost:
        """Say what the machine does instead of speaking: it is gone when this error has been handled."""
        if self._process is None or self._monitor is None:
            return self._lost(message)
        found = hold_inquest(self._process.pid, self._monitor, self._spec.vcpus)
        self._inquest = found.report
        return self._lost(message, found.summary)

    def _lost(self, message: str, more: Sequence[str] = ()) -> GuestLost:
        lines = self.console().replace("\r", "").splitlines()
        # A panic's backtrace is longer than what is shown.
        panic = next((line for line in lines if _PANIC in line), None)
        return GuestLost(
            message if panic is None else f"{message}: its kernel has panicked: {panic.strip()}",
            last_lines=[*lines[-_TAIL:], *more],
            hint="these are the last lines of its console; what a command had said until then is no verdict",
        )


def _to(descriptor: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    return write


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
