# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload in the guest answers to ``load``, ``verify`` and ``stop``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import MachineryError


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a workload's, read."""

    pages: int
    """Pages that it owns and has looked at."""
    bad: int
    """Of those, how many do not hold what they must."""
    checksum: str
    """Of what was found in all of them."""
    steps: int
    """Steps of its work so far."""
    live_bad: int
    """Wrong things that it has found while it worked."""

    @classmethod
    def read(cls, answer: Mapping[str, object]) -> Answer:
        """Raises :class:`MachineryError` if a number is missing."""
        return cls(
            pages=number(answer, "pages"),
            bad=number(answer, "bad"),
            checksum=str(answer["checksum"]),
            steps=number(answer, "steps"),
            live_bad=number(answer, "live_bad"),
        )


def number(answer: Mapping[str, object], key: str) -> int:
    """A whole number of an answer.  Raises :class:`MachineryError` if there is none."""
    value = answer.get(key)
    if not isinstance(value, int):
        raise MachineryError(f"the guest's answer has no number {key!r}: {dict(answer)!r}")
    return value
