# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends a walk: which rule was broken, where, and what was found there."""

from __future__ import annotations

from harness.errors import MachineryError


class WalkError(MachineryError):
    """The guest's memory cannot be walked, or is not what a sound kernel leaves behind.

    ``rule`` is a short name for programs (``ring``, ``dangling``, ``count``, ...;
    docs/walk.md lists them), ``where`` says which structure.
    """

    def __init__(self, rule: str, where: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.rule = rule
        self.where = where
        self.problem = problem


class TornError(WalkError):
    """The guest was stopped in the middle of an operation on a list, and its state cannot be told.

    A zone's lock was held.  Nothing is known to be wrong: walk again at another time.
    """
