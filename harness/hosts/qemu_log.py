# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's log of a QEMU holds: its command line, and what it said itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

_CONTINUED: Final = re.compile(r"\s*\\\n")


#: What libvirt itself notes in the log, with a time of its own form: how a QEMU was started, that it has
#: ended, and that we pass it arguments of our own.
_LIBVIRTS: Final = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+\+0000: (starting up|shutting down|.* is tainted: )")


def last_words(log: Path, lines: int = 15) -> tuple[str, ...]:
    """What QEMU itself said, from libvirt's log of it: all that is not its command line."""
    return tuple(_log_parts(log)[1][-lines:])


def logged_command(log: Path) -> tuple[str, ...]:
    """The command line by which libvirt started QEMU last, from its log."""
    return _log_parts(log)[0]


def _log_parts(log: Path) -> tuple[tuple[str, ...], list[str]]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return (), []
    command: tuple[str, ...] = ()
    said: list[str] = []
    for line in _CONTINUED.sub(" ", text).splitlines():
        # Environment, then the program: "LC_ALL=C PATH=... /path/to/qemu -name ...".
        if line.startswith("LC_ALL="):
            words = shlex.split(line)
            command = tuple(words[next((i for i, word in enumerate(words) if "=" not in word), 0) :])
            said = []
        elif command and not _LIBVIRTS.match(line):
            said.append(line)
    return command, said
