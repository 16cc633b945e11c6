# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process of a lab is called outside of it: by its user, by gdb, by ``ps``.

In a lab /proc is the lab's own, with its own process numbers.  The /proc of whoever started the command
stays open, so that it can be asked from inside::

    remember_outside()              # outside, before the lab is entered
    number = outside_pid(17)        # inside: what 17 is called there
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_open: list[int] = []
_command: list[int] = []
_OWN_NAMESPACE: Final = Path("/proc/self/ns/pid")


def remember_outside() -> None:
    """Keep this process's /proc at hand, for itself and its forks."""
    if not _open:
        _command.append(os.getpid())
        _open.append(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def command_pid() -> int:
    """The number of the process that has entered the lab, as its user sees it: who signals it, signals us."""
    return _command[0] if _command else os.getpid()


def outside_pid(pid: int) -> int:
    """The number of a process of this lab, as the command's user sees it; outside of a lab, the same.

    Raises :class:`ProcessLookupError` if there is no such process.
    """
    if not _open:
        return pid
    (proc,) = _open
    own = _OWN_NAMESPACE.stat().st_ino
    # A directory that was opened by its path alone cannot be listed.
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        entries = Path(f"/proc/self/fd/{listed}").iterdir()
        names = [entry.name for entry in entries if entry.name.isdecimal()]
        for name in names:
            # Others' processes do not tell, and some end meanwhile.
            with contextlib.suppress(OSError):
                if inner_number(_read(listed, f"{name}/status")) != pid:
                    continue
                if os.stat(f"{name}/ns/pid", dir_fd=listed).st_ino == own:
                    return int(name)
    finally:
        os.close(listed)
    raise ProcessLookupError(f"no process {pid} of this lab is seen from outside")


def inner_number(status: str) -> int | None:
    """The number of a process in its own namespace, from /proc/PID/status (proc_pid_status(5))."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None


def _read(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()
