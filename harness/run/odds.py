# SPDX-License-Identifier: GPL-2.0-or-later
"""How much some runs tell of all runs: the arithmetic of a failure that does not come each time.

A run is taken for a draw: it fails with a rate that is the same each time, whatever the others did.
"""

from __future__ import annotations

import math
from typing import Final

#: How sure a bound is.
CONFIDENCE: Final = 0.95
#: Halvings of [0, 1]: more than a double can tell apart.
_HALVINGS: Final = 60


def at_least(failed: int, runs: int, rate: float) -> float:
    """The chance that so many runs or more fail of ``runs``, each with this rate."""
    return math.fsum(
        math.comb(runs, some) * rate**some * (1 - rate) ** (runs - some) for some in range(failed, runs + 1)
    )


def least_rate(failed: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """The lowest rate that fits: with less, so many failures come in under ``1 - confidence`` of all cases.

    The one-sided bound of Clopper and Pearson (Biometrika 26, 1934); 0 where nothing failed.
    """
    _demand(failed, runs)
    if failed == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_least(failed, runs, middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def most_rate(failed: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """The highest rate that fits: the mirror of :func:`least_rate`; 1 without a run."""
    _demand(failed, runs)
    return 1.0 if runs == 0 else 1 - least_rate(runs - failed, runs, confidence)


def missed(rate: float, runs: int) -> float:
    """The chance that something which fails with this rate passes so many runs."""
    return float((1 - rate) ** runs)


def runs_to_tell(rate: float, risk: float) -> int:
    """How many runs have to pass until a failure of this rate is missed in no more than ``risk`` of cases."""
    if not 0 < rate <= 1 or not 0 < risk < 1:
        raise ValueError(f"a rate of {rate} and a risk of {risk}")
    return 1 if rate == 1 else max(1, math.ceil(math.log(risk) / math.log1p(-rate)))


def _demand(failed: int, runs: int) -> None:
    if not 0 <= failed <= runs:
        raise ValueError(f"{failed} of {runs} runs failed")
