# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a guest that is gone: its last lines, QEMU's, and QEMU's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.errors import GuestLost
from harness.events import Deadline
from harness.guest.console import Console
from harness.hosts.interface import Host, Pair
from harness.hosts.qemu_log import last_words, logged_command

NAME: Final = "guest"

#: After its QEMU has ended: for the last of what it has said to be read.
_DRAIN_SECONDS: Final = 2.0


def lost(host: Host, message: str) -> GuestLost:
    """The error for a QEMU of ``host`` that is gone; raises the daemon's, if that is gone too."""
    host.check()
    return GuestLost(message, command=logged_command(host.qemu_log(NAME)))


def explained(error: GuestLost, console: Console, pair: Pair, console_log: Path) -> GuestLost:
    """The same error with all that is left of the guest; its whole console is in ``console_log``."""
    console.drain(Deadline(_DRAIN_SECONDS, "the console's end"))
    lines = [f"console: {line}" for line in console.tail(20)]
    command: tuple[str, ...] = ()
    for host in pair.hosts:
        log = host.qemu_log(pair.guest_name)
        lines += [f"{host.name} QEMU: {line}" for line in last_words(log)]
        command = command or logged_command(log)
    panic = console.panic
    return GuestLost(
        f"the guest's kernel panicked: {panic}" if panic else error.message,
        last_lines=lines,
        command=error.command or command,
        hint=error.hint or f"the whole console is in {console_log}",
    )
