# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench's statistics against scipy's, where scipy has the same one.

It has no median of quotients with the interval of the rank test: that stays against counting by hand, in
test_bench_statistics.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.bench import growth, statistics
from harness.bench.statistics import cumulative, median_interval, rank_test

GIB = 1 << 30
#: Few different values, so that there are ties; scipy wants two in a group at least.
tied = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=5)


@pytest.mark.parametrize("count", [*range(6, 30), 100])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_an_interval_is_that_of_the_quantile_test(count: int, level: float) -> None:
    numbers = np.random.default_rng(count).lognormal(0.0, 1.0, count)
    theirs = stats.quantile_test(numbers, q=1.0, p=0.5).confidence_interval(level)
    mine = median_interval(numbers.tolist(), level)
    assert mine is not None
    if np.isnan(theirs.low):  # no pair of values covers so much: scipy gives none, we give what there is
        assert (mine.low, mine.high) == (numbers.min(), numbers.max())
        assert mine.coverage < level
        return
    assert (mine.low, mine.high) == (theirs.low, theirs.high)
    rank = int(np.sum(numbers <= mine.low))
    assert mine.coverage == pytest.approx(1 - 2 * stats.binom.cdf(rank - 1, count, 0.5))


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20))
def test_ranks_are_those_of_rankdata(numbers: list[float]) -> None:
    assert statistics._midranks(np.asarray(numbers)).tolist() == stats.rankdata(numbers).tolist()


@settings(max_examples=50, deadline=None)
@given(tied, tied)
def test_p_is_that_of_a_permutation_test(first: list[float], second: list[float]) -> None:
    ranks = stats.rankdata([*first, *second])
    mine, theirs = ranks[: len(first)], ranks[len(first) :]
    centre = len(first) * (len(ranks) + 1) / 2
    found = stats.permutation_test(
        (mine, theirs),
        lambda one, _: abs(float(np.sum(one)) - centre),
        permutation_type="independent",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert rank_test(first, second).p == pytest.approx(found.pvalue)


@given(st.permutations(range(11)), st.integers(1, 10))
def test_p_without_ties_is_that_of_mann_and_whitney(order: list[int], split: int) -> None:
    first, second = [float(x) for x in order[:split]], [float(x) for x in order[split:]]
    theirs = stats.mannwhitneyu(first, second, alternative="two-sided", method="exact")
    assert rank_test(first, second).p == pytest.approx(theirs.pvalue)


def test_an_estimated_p_is_near_that_of_mann_and_whitney() -> None:
    generator = np.random.default_rng(11)
    first, second = generator.normal(0.0, 1.0, 15), generator.normal(0.6, 1.0, 15)
    theirs = stats.mannwhitneyu(first, second, alternative="two-sided", method="exact")
    mine = rank_test(first.tolist(), second.tolist())
    assert not mine.exact
    assert mine.p == pytest.approx(theirs.pvalue, abs=0.01)


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=20, unique=True))
def test_the_empirical_distribution_is_that_of_ecdf(numbers: list[float]) -> None:
    theirs = stats.ecdf(numbers).cdf
    values, shares = zip(*cumulative(numbers), strict=True)
    assert list(values) == theirs.quantiles.tolist()
    assert list(shares) == pytest.approx(theirs.probabilities.tolist())


def test_growth_with_one_effect_is_a_linear_regression() -> None:
    generator = np.random.default_rng(5)
    sizes = [size for size in (1, 2, 4, 8) for _ in range(4)]
    samples = [
        growth.Sample(size * GIB, 0.3 * GIB, 20 + 5 * size + float(generator.normal(0, 2))) for size in sizes
    ]
    found = growth.fit(samples)
    theirs = stats.linregress(sizes, [sample.value for sample in samples])
    assert found is not None
    assert found.by_total is not None
    assert found.by_total.per_gib == pytest.approx(theirs.slope)
    assert found.fixed == pytest.approx(theirs.intercept)
    assert found.explained == pytest.approx(theirs.rvalue**2)
