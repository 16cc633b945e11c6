# SPDX-License-Identifier: GPL-2.0-or-later
"""Of the exit statuses of several runs the one that counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.errors import ExitCode

INTERRUPTED: Final = 130

#: Of several exit statuses, the one that counts: the first of these that occurred.
_GRAVITY: Final = (
    INTERRUPTED,
    ExitCode.ERROR,
    ExitCode.INPUT,
    ExitCode.FAIL,
    ExitCode.INCONCLUSIVE,
    ExitCode.PASS,
)


def worst(statuses: Iterable[int]) -> int:
    """Of several exit statuses the one that counts: no verdict before a failure, a failure before doubt."""
    found = set(statuses)
    return next((int(status) for status in _GRAVITY if status in found), max(found, default=0))
