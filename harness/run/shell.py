# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage shell``: a guest with everything in place, and a shell in it.

On a terminal it is interactive; otherwise commands are read from stdin, and
stdout and stderr are the guest's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness.events import Deadline, EventStream
from harness.hosts.netns import GUEST_ADDRESS
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.boot import load_workload, ready_guest
from harness.terminal import TerminalProgress, raw_mode

if TYPE_CHECKING:
    import paramiko

_CONNECT_SECONDS: Final = 30.0
_CHUNK: Final = 32768


def guest_shell(plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress) -> int:
    """Boot, load, connect; returns the remote shell's exit status."""
    from harness.guest.shell import Shell

    with ready_guest(plan, folder, events) as ready:
        load_workload(ready, events)
        deadline = Deadline(_CONNECT_SECONDS, "the guest's ssh server")
        with (
            Shell.connect(GUEST_ADDRESS, ready.guest.keys, deadline) as session,
            terminal.suspended(),
            session.open_channel("the shell", deadline) as channel,
        ):
            if sys.stdin.isatty():
                _interactive(channel)
            else:
                _piped(channel)
            status = session.exit_status(channel, "the shell")
    folder.finish()
    return status


def _interactive(channel: paramiko.Channel) -> None:
    size = shutil.get_terminal_size()
    channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
    channel.invoke_shell()
    with _raw_terminal(channel):
        _pump(channel)


@contextlib.contextmanager
def _raw_terminal(channel: paramiko.Channel) -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C among them; a change of the window's size too."""

    def resize(*_: object) -> None:
        size = shutil.get_terminal_size()
        channel.resize_pty(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        with raw_mode(sys.stdin.fileno()):
            yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _pump(channel: paramiko.Channel) -> None:
    """Carry keys there and output back until the shell ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is channel:
                    data = channel.recv(_CHUNK)
                    if not data:
                        return
                    _write_all(sys.stdout.fileno(), data)
                elif keys := os.read(sys.stdin.fileno(), _CHUNK):
                    # Refused if the shell has just ended: the channel says so next.
                    with contextlib.suppress(OSError):
                        channel.sendall(keys)
                else:
                    selector.unregister(sys.stdin)
                    channel.shutdown_write()


def _piped(channel: paramiko.Channel) -> None:
    channel.exec_command("/bin/sh")
    threads = [
        threading.Thread(target=_feed, args=(channel,), daemon=True),
        threading.Thread(target=_drain_errors, args=(channel,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    while data := channel.recv(_CHUNK):
        _write_all(sys.stdout.fileno(), data)
    threads[1].join()


def _feed(channel: paramiko.Channel) -> None:
    # The shell may end before its input does.
    with contextlib.suppress(OSError):
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            channel.sendall(data)
        channel.shutdown_write()


def _drain_errors(channel: paramiko.Channel) -> None:
    while data := channel.recv_stderr(_CHUNK):
        _write_all(sys.stderr.fileno(), data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
