# SPDX-License-Identifier: GPL-2.0-or-later
"""What the result of a run with several guests says of each of them."""

from __future__ import annotations

from pydantic import Field

from harness.report.part import Part
from harness.scenario.expectations import VerdictWord


class GuestEnd(Part):
    """What came of one of the guests; all of it is in the result of its own, in its folder."""

    guest: int
    """Its number, from 1."""
    verdict: VerdictWord
    """Its own."""
    reason: str
    """Its own, in one sentence."""
    seed: int
    """Its own, drawn from the run's."""
    folder: str
    """Below the run folder; a whole run folder, as that of a run with one guest."""
    skipped: int
    """Pages left behind."""
    sent: int | None
    """Bytes sent; null: its migration came to no switch-over."""
    total_ms: int | None
    """How long its last migration took; null likewise."""
    downtime_ms: int | None
    """How long it was down then; null likewise."""
    under_way: list[tuple[float, float | None]]
    """When each of its migrations was under way, by its source's QEMU (active to its end): seconds of the
    run; null: no end was seen."""


class Guests(Part):
    """The guests of a run with several."""

    together_ms: list[int]
    """For each move: for how long the migrations of all guests were under way at the same time; 0: never,
    and then the run shows nothing of several guests."""
    each: list[GuestEnd] = Field(min_length=1)
    """In the order of their numbers."""
