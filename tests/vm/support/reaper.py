# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a program that goes into the background, and reaps what it and its like leave behind.

    python3 reaper.py libvirtd --daemon

For machines whose init does not: libvirt ends a QEMU and waits until it is gone, which
a process that nobody reaps never is.  Ends when the program says that it is ready (its
first process ends), with its exit status; what reaps stays.
"""

import contextlib
import ctypes
import os
import sys

PR_SET_CHILD_SUBREAPER = 36


def reap(command: list[str], ready: int) -> None:
    """In the background: run the command; its orphans, and theirs, come here."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    first = os.fork()
    if first == 0:
        os.execvp(command[0], command)
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.wait()
            if process == first:
                os.write(ready, bytes([os.waitstatus_to_exitcode(status) & 0xFF]))


def main(*command: str) -> int:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(reading)
        reap(list(command), writing)
        os._exit(0)
    os.close(writing)
    return (os.read(reading, 1) or b"\3")[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
