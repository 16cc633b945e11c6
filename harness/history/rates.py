# SPDX-License-Identifier: GPL-2.0-or-later
"""How often something fails, and how sure that is.  Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: The two-sided 95 % point of the normal distribution.
_Z: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class FailureRate:
    """``wrong`` of ``runs``; ``low`` and ``high`` hold the true share in 95 % of all such cases."""

    wrong: int
    runs: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of all runs."""
        return self.wrong / self.runs if self.runs else 0.0

    def words(self) -> str:
        """``2/40 (1.4 to 16.5 %)``."""
        return f"{self.wrong}/{self.runs} ({100 * self.low:.1f} to {100 * self.high:.1f} %)"


def failure_rate(wrong: int, runs: int) -> FailureRate:
    """Wilson's score interval, which holds for no failures, and for few runs, too.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    Raises :class:`ValueError` for more failures than runs.
    """
    if not 0 <= wrong <= runs:
        raise ValueError(f"{wrong} of {runs} runs failed")
    if not runs:
        return FailureRate(0, 0, 0.0, 1.0)
    share, square = wrong / runs, _Z * _Z
    middle = (share + square / (2 * runs)) / (1 + square / runs)
    half = _Z / (1 + square / runs) * math.sqrt(share * (1 - share) / runs + square / (4 * runs * runs))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return FailureRate(wrong, runs, low if wrong else 0.0, high if wrong < runs else 1.0)
