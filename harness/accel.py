# SPDX-License-Identifier: GPL-2.0-or-later
"""Does KVM run guests here?  ``auto`` asks that before it decides.

A ``/dev/kvm`` that opens and answers proves little: in some virtual machines it
is a paravirtual stand-in under which an unmodified Linux is emulated and has
not printed a line after minutes.  So a real guest kernel is started under it,
and has a few seconds to say its first word.  The answer is kept until the host
boots again or the QEMU changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from harness.arch import GUEST, HOST, Architecture
from harness.errors import DeadlineExceeded, MachineryError
from harness.events import Deadline, EventStream

KVM_DEVICE: Final = Path("/dev/kvm")

#: What a Linux prints first, and how long it may take: a second, or several where KVM itself is emulated.
FIRST_WORD: Final = b"Linux version"
PROBE_SECONDS: Final = 20.0

#: Set inside a nested machine: through which accelerators its KVM comes.
CHAIN_VARIABLE: Final = "FREEPAGE_CHAIN"
_CHAINS: Final = {
    "kvm-in-tcg": "in a machine whose SVM is emulated by TCG",
    "kvm-in-kvm": "in a machine that has nested virtualisation from this host's KVM",
}

_KVM_GET_API_VERSION: Final = 0xAE00
_KVM_API: Final = 12
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProbeMachine:
    """What the probe starts: a QEMU with its firmware, and a guest kernel."""

    qemu: Path
    qemu_sha256: str
    firmware: tuple[Path, ...]
    vmlinuz: Path
    architecture: Architecture = GUEST

    def command(self, accelerator: str = "kvm") -> list[str]:
        """The smallest guest that tells: no disk, no init; it need not live long."""
        board = self.architecture.board
        cpu = "host" if accelerator == "kvm" else board.cpu
        command = [str(self.qemu), "-accel", accelerator, "-cpu", cpu, "-m", "256", "-nodefaults"]
        for folder in self.firmware:
            command += ["-L", str(folder)]
        command += ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(self.vmlinuz)]
        return [*command, "-append", f"{board.early_console} panic=-1"]


@dataclass(frozen=True, slots=True)
class KvmProbe:
    """Whether KVM runs guests, and how that is known."""

    usable: bool
    reason: str
    #: How long a guest kernel took to its first word, where one was started.
    seconds: float | None = None


class ProbeMemory(Protocol):
    """Where an answer is kept: the toolchain's cache."""

    def recall(self, name: str) -> object | None:
        """What was remembered under that name."""

    def remember(self, name: str, value: object) -> None:
        """Keep a small value under that name."""


def chain() -> str | None:
    """The chain of accelerators around this process; None outside of a nested machine."""
    name = os.environ.get(CHAIN_VARIABLE, "")
    return name if name in _CHAINS else None


def full_name(accelerator: str) -> str:
    """The accelerator of a guest here, with all that is around it: ``kvm-in-tcg``."""
    return chain() or accelerator if accelerator == "kvm" else accelerator


def device_problem(device: Path = KVM_DEVICE) -> str | None:
    """Why ``/dev/kvm`` cannot even be asked; None when it can."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {device}"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return f"{device} does not answer: {error.strerror}"
    finally:
        os.close(descriptor)
    return None if version == _KVM_API else f"{device} speaks version {version} of KVM's interface"


def boots(machine: ProbeMachine, seconds: float = PROBE_SECONDS, accelerator: str = "kvm") -> KvmProbe:
    """Start a guest kernel and wait for its first word."""
    began = time.monotonic()
    process = subprocess.Popen(
        machine.command(accelerator),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        deadline = Deadline(seconds, f"the probe of {accelerator.upper()}")
        said, ended = _listen(process.stdout.fileno(), deadline)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    took = round(time.monotonic() - began, 2)
    answer = judge_words(said, seconds, accelerator, ended=ended)
    return replace(answer, seconds=took) if answer.usable else answer


#: What QEMU itself says begins with its name.
_OF_QEMU: Final = re.compile(r"(\S*/)?qemu[\w.-]*: ")
#: As assert(3) and GLib print it: "FILE:LINE: FUNCTION: Assertion `...' failed."
_ASSERTION: Final = re.compile(r":\d+:\s?(\w+):\s?[Aa]ssertion")


def judge_words(said: bytes, seconds: float, accelerator: str = "kvm", *, ended: bool = False) -> KvmProbe:
    """What a guest kernel's words prove, or its silence after ``seconds``.  ``ended``: QEMU is gone."""
    name = accelerator.upper()
    if FIRST_WORD in said:
        return KvmProbe(True, f"a guest kernel under {name} printed its first line")
    # What firmware and the kernel's first stage print ("Probing EDD ... ok") says nothing of KVM.
    own = [line for line in said.decode("utf-8", "replace").splitlines() if _OF_QEMU.match(line)]
    if own:
        failed = _ASSERTION.search(own[-1])
        words = f"an assertion in its {failed[1]}() fails" if failed else own[-1].partition(": ")[2]
        return KvmProbe(False, f"QEMU starts no guest under {name}: {words}")
    lines = said.decode("utf-8", "replace").split("\n") if ended else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), None)
    if last is not None:
        return KvmProbe(False, f"QEMU starts no guest under {name}: {last}")
    return KvmProbe(False, f"a guest kernel under {name} printed no line within {seconds:g} s")


def _listen(descriptor: int, deadline: Deadline) -> tuple[bytes, bool]:
    """What is said until the first word, the end or the deadline; and whether it was the end."""
    said, ended = b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        with contextlib.suppress(DeadlineExceeded):
            while FIRST_WORD not in said:
                if not selector.select(deadline.timeout()):
                    continue
                piece = os.read(descriptor, 65536)
                if not piece:
                    ended = True
                    break
                said += piece
    return said, ended


def probe_kvm(machine: ProbeMachine, memory: ProbeMemory, events: EventStream) -> KvmProbe:
    """Whether KVM runs guests; from memory where this was asked before in this boot of the host."""
    if machine.architecture is not HOST:
        return KvmProbe(False, f"KVM runs no guests on {machine.architecture.name} on a {HOST.name} machine")
    problem = device_problem()
    if problem is not None:
        return KvmProbe(False, problem)
    around = chain()
    if around is not None:
        return KvmProbe(True, _CHAINS[around])
    known = known_kvm(machine, memory)
    if known is not None:
        return known
    with events.step("probe-kvm", limit_s=PROBE_SECONDS) as step:
        answer = boots(machine)
        step.note(usable=answer.usable, reason=answer.reason)
    # A memory that cannot be written costs the next run a few seconds, no more.
    with contextlib.suppress(MachineryError, OSError):
        memory.remember(f"kvm-probe-{_key(machine)}", asdict(answer))
    return answer


def known_kvm(machine: ProbeMachine, memory: ProbeMemory) -> KvmProbe | None:
    """What an earlier probe found, in this boot of the host; None if there was none."""
    known = memory.recall(f"kvm-probe-{_key(machine)}")
    if isinstance(known, dict):
        with contextlib.suppress(TypeError):
            return KvmProbe(**known)
    return None


#: Changes when the answers' words change: what is remembered has them.
_WORDS: Final = 2


def _key(machine: ProbeMachine) -> str:
    parts: Sequence[str] = (
        str(_WORDS),
        _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else "",
        machine.qemu_sha256,
        str(machine.vmlinuz),
        str(os.getuid()),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


_NESTED: Final = ("kvm_intel", "kvm_amd")


def hardware_nesting(modules: Path = Path("/sys/module")) -> bool:
    """Whether this host's KVM says that it offers virtualisation to its guests."""
    parameters = (modules / module / "parameters" / "nested" for module in _NESTED)
    return any(path.read_text(encoding="ascii").strip() in ("1", "Y") for path in parameters if path.exists())
