# SPDX-License-Identifier: GPL-2.0-or-later
"""For tests of hosts that are reached by ssh: what ends in mid-run, and a page that is changed on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from harness.events import Deadline
from harness.units import PAGE_SIZE
from tests.vm.support.processes import kill_all, name_of, parent_of, words_of
from tests.vm.support.ssh_hosts import Ssh

#: Cleaning up after a lost connection takes libvirt a moment.
CLEAN_SECONDS = 120.0


def flip(guest: str, memory_bytes: int, pages: Sequence[int]) -> None:
    """Change one bit of these pages in the memory of the only QEMU that is left."""
    (qemu,) = [p for p in psutil.process_iter() if any(f"guest={guest}" in word for word in words_of(p))]
    found = []
    for path in Path(f"/proc/{qemu.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may close others
            if "memfd:" in os.readlink(path) and path.stat().st_size == memory_bytes:
                found.append(path)
    (memory,) = found
    descriptor = os.open(memory, os.O_RDWR)
    for page in pages:
        (byte,) = os.pread(descriptor, 1, page * PAGE_SIZE + 123)
        os.pwrite(descriptor, bytes([byte ^ 0x10]), page * PAGE_SIZE + 123)
    os.close(descriptor)


def _kill_ssh(running: psutil.Process) -> None:
    """The client that is connected to the source."""
    clients = [p for p in running.children(recursive=True) if name_of(p) == "ssh"]
    kill_all([p for p in clients if any("/source/control" in word for word in words_of(p))])


def _kill_deputies(running: psutil.Process) -> None:
    """Not the keepers, which have the same command line: children of deputies, as long as those live."""
    del running
    found = [p for p in psutil.process_iter() if any(word.endswith("deputy.zip") for word in words_of(p))]
    numbers = {process.pid for process in found}
    kill_all([process for process in found if parent_of(process) not in numbers])


#: What ends, in which step, and with which exit status.
LOSSES: dict[str, tuple[Callable[[psutil.Process], None], str, int]] = {
    "ssh": (_kill_ssh, "migrate", 3),
    "harness": (lambda running: running.kill(), "boot", -9),
    "deputy": (_kill_deputies, "load", 3),
    "interrupt": (lambda running: running.send_signal(signal.SIGINT), "boot", 130),
}


def settled(ssh: Ssh, wanted: object) -> object:
    """What there is when it is what is wanted, or when the time is over: nobody tells when it is."""
    deadline = Deadline(CLEAN_SECONDS, "the hosts to be left")
    while (found := ssh.left()) != wanted and not deadline.expired:
        time.sleep(0.2)
    return found
