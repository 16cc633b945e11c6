# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads files that a user names: bounded, and only what is a file.

A FIFO would keep the command waiting for a writer that may never come, ``/dev/zero`` has no
end, and a file of gigabytes is not what was asked for.  Each is refused in words before it is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.units import format_size

#: What a kind of file is called where it is refused.
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def read_bounded(path: Path, most: int, what: str) -> bytes:
    """All bytes of a regular file.

    ``most`` is how many bytes it may have, ``what`` names what is expected of it ("a scenario").
    Raises :class:`InputError` for anything else, and for what cannot be read.
    """
    try:
        # Without O_NONBLOCK a FIFO would be waited for, before anybody could see that it is one.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise cannot_read(path, what, error) from error
    try:
        about = os.fstat(descriptor)
        demand_regular(path, about.st_mode, what)
        if about.st_size > most:
            raise _too_large(path, most, what)
    except InputError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            # The size that the file system tells may be 0 (in /proc), or old by now.
            data = file.read(most + 1)
        except OSError as error:
            raise cannot_read(path, what, error) from error
    if len(data) > most:
        raise _too_large(path, most, what)
    return data


def _too_large(path: Path, most: int, what: str) -> InputError:
    return InputError(f"{path}: not {what}: larger than {format_size(most)}")


def read_text(path: Path, most: int, what: str) -> str:
    """The same as text, which has to be UTF-8."""
    try:
        return read_bounded(path, most, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not {what}: byte {error.start} is not UTF-8 text") from error


def demand_regular(path: Path, mode: int, what: str) -> None:
    """Raise :class:`InputError` unless ``mode``, as of stat(2), is that of a regular file."""
    for is_one, kind in _KINDS:
        if is_one(mode):
            hint = None if kind == "a folder" else "save what it gives to a file first"
            raise InputError(f"{path} is {kind}, and not {what}", hint=hint)


def cannot_read(path: Path, what: str, error: OSError | ValueError) -> InputError:
    """The error for a file that does not open, or breaks off."""
    # ValueError: a name with a null byte in it.
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"cannot read {path}, which was to be {what}: {reason}")
