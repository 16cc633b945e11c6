# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a measure has moved, in a row of values in the order of time.  Pure.

Pettitt's test finds the place where the values before and after differ most by rank, and says how often
chance alone makes as large a difference (A. N. Pettitt, A non-parametric approach to the change-point
problem, Applied Statistics 28, 1979).  It assumes no distribution: times of migrations have outliers.  What
lies before and after that place is searched again.  A change of a median that is smaller than a threshold
does not matter, however sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

#: Chance alone must explain a change at most this often.  Of the pages of a site hundreds of rows are looked
#: at, each several times: at 0.001 a site without any change has hardly ever a mark.
MARK_ALPHA: Final = 0.001
#: As ``freepage bench compare``: a smaller change of a median does not matter.
MARK_THRESHOLD: Final = 0.05
#: On either side of a change: fewer values cannot show one at :data:`MARK_ALPHA`.
FEWEST_VALUES: Final = 6


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """``at``: the first value that is different; medians of the values back and on to the next changes."""

    at: int
    before: float
    after: float
    p: float

    @property
    def share(self) -> float:
        """By which share of what it was before; infinite from zero."""
        if self.before == 0:
            return math.inf if self.after else 0.0
        return (self.after - self.before) / abs(self.before)


def change_points(
    values: Sequence[float], *, alpha: float = MARK_ALPHA, threshold: float = MARK_THRESHOLD
) -> list[ChangePoint]:
    """All changes, in order."""
    row = np.asarray(values, dtype=np.float64)
    found = sorted(_search(row, 0, len(row), alpha, threshold))
    edges = [0, *(at for at, _ in found), len(row)]
    return [
        ChangePoint(at, float(np.median(row[edges[n] : at])), float(np.median(row[at : edges[n + 2]])), p)
        for n, (at, p) in enumerate(found)
    ]


def _search(
    row: np.ndarray, begin: int, end: int, alpha: float, threshold: float
) -> Iterator[tuple[int, float]]:
    part = row[begin:end]
    if len(part) < 2 * FEWEST_VALUES:
        return
    at, p = _pettitt(part)
    if p > alpha:
        return
    before, after = float(np.median(part[:at])), float(np.median(part[at:]))
    if abs(after - before) > threshold * max(abs(before), abs(after)):
        yield begin + at, p
    yield from _search(row, begin, begin + at, alpha, threshold)
    yield from _search(row, begin + at, end, alpha, threshold)


def _pettitt(part: np.ndarray) -> tuple[int, float]:
    """The place of the largest difference, at least :data:`FEWEST_VALUES` from both ends, and its p."""
    count = len(part)
    _, inverse, counts = np.unique(part, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    at = np.arange(1, count)
    size = np.abs(2.0 * np.cumsum(ranks)[:-1] - at * (count + 1))
    inside = slice(FEWEST_VALUES - 1, count - FEWEST_VALUES)
    best = int(np.argmax(size[inside])) + FEWEST_VALUES
    largest = float(size[best - 1])
    p = 2.0 * math.exp(-6.0 * largest**2 / (count**3 + count**2))
    return best, min(1.0, p)
