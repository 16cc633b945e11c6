# SPDX-License-Identifier: GPL-2.0-or-later
"""How a measure grows with the guest's total memory and with what of it is in use.  Pure.

The model is a plane: ``measure = fixed + by_total * total + by_used * used``.
Its coefficients have intervals from a bootstrap that draws runs anew *within*
each size, so that every sample has the sizes that were measured.  Where total
and used memory grew in step (the workload fills a share of memory) their effects
cannot be told apart, and only the used memory is fitted; where the use was the
same at every size, only the total is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.bench.statistics import LEVEL, Interval

GIB: Final = 1 << 30
RESAMPLES: Final = 2000
#: Above this correlation two effects are one.
INSEPARABLE: Final = 0.98
#: A use that varies by less, as a share of the largest, is the same use.
_SAME_USE: Final = 0.1
#: Fewer runs of one size give a bootstrap nothing to draw from.
LEAST_RUNS: Final = 2

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: bytes of memory in total and in use, and the measure."""

    total: float
    used: float
    value: float


@dataclass(frozen=True, slots=True)
class Coefficient:
    """By how much the measure grows a GiB, and the interval of that; None with too few runs."""

    per_gib: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Fit:
    """The plane.  A coefficient is None where it could not be told from the others.

    ``explained`` is the share of the variance that the plane explains (R squared).
    """

    fixed: float
    by_used: Coefficient | None
    by_total: Coefficient | None
    explained: float
    runs: int


def fit(samples: Sequence[Sample], seed: int = 0) -> Fit | None:
    """Fit the plane by least squares; None with fewer than two sizes."""
    total = np.array([sample.total for sample in samples]) / GIB
    used = np.array([sample.used for sample in samples]) / GIB
    value = np.array([sample.value for sample in samples])
    if len(np.unique(total)) < 2:
        return None
    columns = {"used": used, "total": total}
    if np.ptp(used) <= _SAME_USE * float(used.max()):
        del columns["used"]
    elif abs(float(np.corrcoef(total, used)[0, 1])) >= INSEPARABLE:
        del columns["total"]
    design = np.column_stack([np.ones_like(used), *columns.values()])
    solution = _solve(design, value)
    drawn = _bootstrap(design, value, total, seed)
    names = ["fixed", *columns]

    def coefficient(name: str) -> Coefficient | None:
        if name not in names:
            return None
        index = names.index(name)
        if drawn is None:
            return Coefficient(float(solution[index]), None)
        low, high = np.quantile(drawn[:, index], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Coefficient(float(solution[index]), Interval(float(low), float(high), LEVEL))

    spread = float(((value - value.mean()) ** 2).sum())
    missed = float(((value - design @ solution) ** 2).sum())
    explained = 1.0 if spread == 0 else 1 - missed / spread
    return Fit(float(solution[0]), coefficient("used"), coefficient("total"), explained, len(samples))


def _solve(design: _Array, value: _Array) -> _Array:
    return np.asarray(np.linalg.lstsq(design, value, rcond=None)[0], np.float64)


def _bootstrap(design: _Array, value: _Array, total: _Array, seed: int) -> _Array | None:
    groups = [np.flatnonzero(total == size) for size in np.unique(total)]
    if min(len(group) for group in groups) < LEAST_RUNS:
        return None
    generator = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, design.shape[1]))
    for index in range(RESAMPLES):
        rows = np.concatenate([generator.choice(group, len(group)) for group in groups])
        drawn[index] = _solve(design[rows], value[rows])
    return drawn


def doublings(medians: Mapping[int, float]) -> list[tuple[int, int, float]]:
    """(from, to, factor) for each pair of sizes of which one is twice the other."""
    return [
        (size, 2 * size, medians[2 * size] / medians[size])
        for size in sorted(medians)
        if 2 * size in medians and medians[size] > 0
    ]
