# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians, intervals and tests for a handful of runs.  Pure; nothing here assumes a distribution.

Times of migrations on a busy machine are skewed, have outliers, and there are
five of them.  So nothing here takes a mean or a standard deviation:

* an interval of a median is a pair of order statistics, whose coverage is exact
  whatever the distribution is, and is reported, since five values cannot give 95 %;
* two arms are compared by ranks, and p is counted over all assignments of the
  values to the arms;
* how much they differ is the median of all quotients (Hodges and Lehmann's
  estimate of a shift, on the logarithms), with the interval that belongs to that
  same test.

docs/bench.md says why, and what was rejected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

#: Up to so many assignments p is exact; beyond, it is estimated from as many random ones.
MOST_EXACT: Final = 20_000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval, and with which probability such intervals hold the true value."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Test:
    """Whether two groups of runs can be told apart.  ``least``: the smallest p of so few different values."""

    p: float
    least: float
    exact: bool


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number, the middle between two."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """The narrowest symmetric pair of order statistics that covers the median at ``level``.

    Where no pair does (fewer than six values at 95 %) it is all of them, with the
    coverage that this has.  None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    ordered = sorted(values)
    chosen = 1
    for rank in range(2, count // 2 + 1):
        if _coverage(count, rank) < level:
            break
        chosen = rank
    return Interval(ordered[chosen - 1], ordered[count - chosen], _coverage(count, chosen))


def _coverage(count: int, rank: int) -> float:
    """The probability that the median lies between the ``rank``-th smallest and ``rank``-th largest value."""
    below = sum(math.comb(count, k) for k in range(rank))
    return 1.0 - float(2 * below / 2**count)


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts - 1) / 2.0)[inverse]
    return ranks


def rank_test(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Test:
    """Two-sided permutation test on ranks: how often chance alone separates the groups as far.

    Exact for up to :data:`MOST_EXACT` assignments (nine against nine is more, eight
    against eight is not), else estimated; an estimate is never 0.
    """
    n, m = len(first), len(second)
    if not n or not m:
        raise ValueError("a group without values cannot be tested")
    ranks = _midranks(np.concatenate([np.asarray(first, float), np.asarray(second, float)]))
    centre = n * (n + m + 1) / 2.0
    seen = abs(float(ranks[:n].sum()) - centre)
    assignments = math.comb(n + m, n)
    least = min(1.0, (2.0 if n + m > 1 else 1.0) / assignments)
    # Half a rank is the smallest step; the tolerance only absorbs rounding.
    if assignments <= MOST_EXACT:
        sums = np.fromiter(
            (sum(chosen) for chosen in itertools.combinations(ranks.tolist(), n)), float, assignments
        )
        return Test(float(np.mean(np.abs(sums - centre) >= seen - 1e-9)), least, exact=True)
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(ranks, (MOST_EXACT, 1)), axis=1)[:, :n].sum(axis=1)
    extreme = int(np.sum(np.abs(shuffled - centre) >= seen - 1e-9))
    return Test((extreme + 1) / (MOST_EXACT + 1), least, exact=False)


def _rank_sum_counts(n: int, m: int) -> list[int]:
    """How many of the assignments have U = 0, 1, 2, ... (no ties): Mann and Whitney's distribution."""
    # Coefficients of the Gaussian binomial (n+m choose n), one factor after the other.
    counts = [1]
    for step in range(1, n + 1):
        rising = _times_one_minus(counts, m + step)
        counts = _divided_by_one_minus(rising, step)
    return counts[: n * m + 1]


def _times_one_minus(counts: list[int], power: int) -> list[int]:
    product = counts + [0] * power
    for index, value in enumerate(counts):
        product[index + power] -= value
    return product


def _divided_by_one_minus(counts: list[int], power: int) -> list[int]:
    quotient = list(counts)
    for index in range(power, len(quotient)):
        quotient[index] += quotient[index - power]
    return quotient[: len(counts) - power]


@dataclass(frozen=True, slots=True)
class Quotient:
    """first / second: the median of all quotients, and its interval."""

    value: float
    interval: Interval


def quotient(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Quotient | None:
    """By which factor ``first`` is ``second``.  None where a value is not positive, or one group is empty.

    The interval is the set of factors that :func:`rank_test` would not reject; with
    few runs it is the whole range of quotients, and the coverage says what that is worth.
    """
    if not first or not second or min(*first, *second) <= 0:
        return None
    n, m = len(first), len(second)
    quotients = np.sort((np.asarray(first, float)[:, None] / np.asarray(second, float)[None, :]).ravel())
    counts, total = _rank_sum_counts(n, m), math.comb(n + m, n)
    cut, below = 0, counts[0]
    # Leave out ``cut`` quotients at either end as long as both tails together stay within 1 - level.
    while cut + 1 <= (n * m - 1) // 2 and 2 * (below + counts[cut + 1]) / total <= 1 - level:
        cut += 1
        below += counts[cut]
    coverage = max(0.0, 1 - 2 * below / total)
    interval = Interval(float(quotients[cut]), float(quotients[n * m - 1 - cut]), coverage)
    return Quotient(float(np.median(quotients)), interval)


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """The empirical distribution: (value, share of runs that are not above it)."""
    ordered = sorted(values)
    return [(value, (index + 1) / len(ordered)) for index, value in enumerate(ordered)]
