# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command inside a nested machine reads: a descriptor of ours, which may be a terminal."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Final

_PIECE: Final = 1 << 14


class Keyboard:
    """Input for one command.  With a terminal, put that into raw mode: every key is the command's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._size = self.size()
        self._ended = False

    @property
    def listening(self) -> list[int]:
        """Descriptors on which something may come; none after the end."""
        return [] if self._ended else [self._descriptor]

    def read(self) -> bytes:
        """The bytes that have come; empty at the end of the input."""
        data = b""
        with contextlib.suppress(OSError):  # of a terminal that is gone
            data = os.read(self._descriptor, _PIECE)
        self._ended = not data
        return data

    def size(self) -> list[int] | None:
        """Rows and columns of the terminal; None if it is none."""
        return list(termios.tcgetwinsize(self._descriptor)) if self._terminal else None

    def resized(self) -> list[int] | None:
        """The terminal's size, if it has changed since it was last asked for."""
        before, self._size = self._size, self.size()
        return self._size if self._size != before else None
