# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a person: for Enter on a terminal; for a line, or the end of the input, in a pipe."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final, Literal, TypeAlias

GoAhead: TypeAlias = Literal["Enter", "a line", "the end of the input", "a signal"]

_STDIN: Final = 0


def what_goes_on(command: int) -> str:
    """What a person has to do for the run to go on, in words; ``command``: the process to be signalled."""
    if _is_terminal():
        return "press Enter, and the run goes on (so does Ctrl-C; a second one ends the run)"
    if _is_nothing():
        return "the standard input is at its end, so nothing is waited for: give it a terminal or a pipe"
    return f"the run goes on with a line of the standard input, with its end, or with: kill {command}"


def await_word() -> GoAhead:
    """Wait until a person wants the run to go on; what told us.  No signal ends more than the waiting."""
    try:
        while True:
            try:
                # One at a time: what comes behind the line is for the next time.
                byte = os.read(_STDIN, 1)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                # Closed, or a terminal that is gone.
                return "the end of the input"
            if not byte:
                return "the end of the input"
            if byte == b"\n":
                return "Enter" if _is_terminal() else "a line"
    except KeyboardInterrupt:
        return "a signal"


def _is_terminal() -> bool:
    try:
        return os.isatty(_STDIN)
    except OSError:
        return False


def _is_nothing() -> bool:
    """Whether it is /dev/null, or closed."""
    try:
        found = os.fstat(_STDIN)
    except OSError:
        return True
    null = Path(os.devnull).stat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == null.st_rdev


def tell(text: str) -> None:
    """Say a line on standard error; nobody may be left to read it."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        pass
