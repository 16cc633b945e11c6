# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a guest that is gone: its last lines, QEMU's, and QEMU's command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import GuestLost, StartRefused
from harness.events import Deadline
from harness.guest.console import Console
from harness.hosts.interface import Host, Pair
from harness.hosts.qemu_log import last_words, logged_command, useful_line

if TYPE_CHECKING:
    from harness.scenario.load import Scenario

#: After its QEMU has ended: for the last of what it has said to be read.
_DRAIN_SECONDS: Final = 2.0

#: What a QEMU says of a machine that has too little of something.
_OF_THE_MACHINE: Final = ("Cannot allocate memory", "No space left on device", "Too many open files")


def lost(host: Host, name: str, message: str) -> GuestLost:
    """The error for a QEMU of ``host`` that is gone; raises the daemon's, if that is gone too.

    ``name``: the guest's.  What that QEMU said of it comes first, before all that is long.
    """
    host.check()
    log = host.qemu_log(name)
    said = useful_line(last_words(log))
    words = f"{message}: {said}" if said is not None and said not in message else message
    return GuestLost(words, command=logged_command(log))


def start_refusal(
    scenario: Scenario, host: Host, name: str, message: str, *, by_libvirt: bool
) -> StartRefused | None:
    """The error for a QEMU that does not start with the words that a scenario has for it.

    ``by_libvirt``: libvirt has started none.  None: there are no such words, or it is not they that
    are refused; a machine that has no memory left refuses anybody's.
    """
    host.check()
    written = scenario.guest.as_written
    log = host.qemu_log(name)
    said = last_words(log)
    complaints = [line for line in said if " warning: " not in line]
    short = any(words in line for line in (*complaints, message) for words in _OF_THE_MACHINE)
    if not written or short or not (by_libvirt or complaints):
        return None
    # Of the words that are complained of, those that say most.
    quoted = [key for key, words in written.items() if any(words in line for line in complaints)]
    key = max(quoted, key=lambda key: len(written[key]), default=next(iter(written)))
    where = str(scenario.wrong(key, "with this"))
    return StartRefused(
        f"{where} the {host.name} cannot start the guest: {message}",
        last_lines=[f"{host.name} QEMU: {line}" for line in said],
        command=logged_command(log),
    )


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
