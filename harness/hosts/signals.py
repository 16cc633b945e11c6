# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that end a command politely: SIGTERM and SIGHUP do what Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

_POLITE: Final = (signal.SIGTERM, signal.SIGHUP)


class Termination(KeyboardInterrupt):
    """A polite signal other than Ctrl-C: the command is wound up the same way."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise Termination(number)


@contextlib.contextmanager
def polite_signals() -> Iterator[None]:
    """While this is entered, SIGTERM and SIGHUP raise :class:`Termination` in the main thread."""
    before = {number: signal.signal(number, _terminate) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
