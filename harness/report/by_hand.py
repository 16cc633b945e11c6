# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a run stood still for a person."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.part import Part


class StoppedByHand(Part):
    """A run stood still, and everything of it but the clocks of this machine."""

    at: str
    """A moment of the migration (--pause-at); or switch-over, failure, end (--keep)."""
    move: int
    """During which of the moves, counted from 1."""
    seconds: float
    """How long; the times of the migration have it in them."""


def stops_in_words(stops: Sequence[StoppedByHand]) -> str:
    """For the reason of a verdict; nothing where there were none."""
    if not stops:
        return ""
    return "; paused by hand: " + ", ".join(f"{stop.at} ({stop.seconds:.0f} s)" for stop in stops)
