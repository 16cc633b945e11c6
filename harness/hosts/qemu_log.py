# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's log of a QEMU holds: its command line, and what it said itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CONTINUED: Final = re.compile(r"\s*\\\n")


#: What libvirt itself notes in the log, with a time of its own form: how a QEMU was started, that it has
#: ended, and that we pass it arguments of our own.
_LIBVIRTS: Final = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+\+0000: (starting up|shutting down|.* is tainted: )")


#: What QEMU, glib, libc and sanitizers begin the line with that says why.
_CAUSE: Final = re.compile(
    r"error while loading state|ERROR: \w+Sanitizer|: runtime error: |[Aa]ssertion .*failed|^ERROR:"
    r"|cannot |Cannot |could not |Could not |[Ff]ailed to |not supported|nvalid "
)


def last_words(log: Path, lines: int = 15) -> tuple[str, ...]:
    """What QEMU itself said, from libvirt's log of it: all that is not its command line."""
    return tuple(_log_parts(log)[1][-lines:])


def useful_line(words: Sequence[str]) -> str | None:
    """Of what a QEMU said, the line that says what was wrong; None: it said nothing.

    That is the first that names a cause; else the last one.
    """
    return next(
        (line for line in words if _CAUSE.search(line) and "warning:" not in line),
        words[-1] if words else None,
    )


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
