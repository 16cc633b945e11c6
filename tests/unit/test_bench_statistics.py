# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians, intervals, tests and fits: against counting by hand, and against what they must hold to."""

from __future__ import annotations

import itertools
import math
import random
import statistics as standard

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bench import growth, statistics
from harness.bench.statistics import Interval, median, median_interval, quotient, rank_test

values = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=7)


@given(values)
def test_the_median_is_the_middle_value(numbers: list[float]) -> None:
    assert median(numbers) == pytest.approx(standard.median(numbers))


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [
        (2, 1, 2, 0.5),
        (5, 1, 5, 1 - 2 / 32),  # five runs give no 95 %
        (6, 1, 6, 1 - 2 / 64),
        (8, 1, 8, 1 - 2 / 256),
        (9, 2, 8, 1 - 2 * 10 / 512),
        (20, 6, 15, 0.9586105),
    ],
)
def test_an_interval_of_order_statistics(count: int, low: int, high: int, coverage: float) -> None:
    numbers = list(range(1, count + 1))
    random.Random(1).shuffle(numbers)
    found = median_interval(numbers)
    assert found is not None
    assert (found.low, found.high) == (low, high)
    assert found.coverage == pytest.approx(coverage)


def test_one_value_has_no_interval() -> None:
    assert median_interval([3.0]) is None


def test_intervals_hold_the_true_median_as_often_as_they_say() -> None:
    # Of a distribution that is as skewed as times are; its median is known.
    generator = np.random.default_rng(7)
    samples = generator.lognormal(0.0, 1.0, (4000, 9))
    covered = [
        found.low <= 1.0 <= found.high
        for sample in samples
        if (found := median_interval(sample.tolist())) is not None
    ]
    assert np.mean(covered) == pytest.approx(1 - 20 / 512, abs=0.012)


def by_hand(first: list[float], second: list[float]) -> float:
    """All assignments, one by one, with ranks counted the slow way."""
    together = first + second

    def rank(value: float) -> float:
        return sum(other < value for other in together) + (1 + together.count(value)) / 2

    ranks = [rank(value) for value in together]
    n, centre = len(first), len(first) * (len(together) + 1) / 2
    seen = abs(sum(ranks[:n]) - centre)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, n)]
    return sum(abs(total - centre) >= seen - 1e-9 for total in sums) / len(sums)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=5)
)
def test_p_is_counted_over_all_assignments(first: list[int], second: list[int]) -> None:
    mine, theirs = [float(x) for x in first], [float(x) for x in second]
    test = rank_test(mine, theirs)
    assert test.exact
    assert test.p == pytest.approx(by_hand(mine, theirs))
    # Equal values can make one end more extreme than the other.
    assert test.p >= test.least / 2 * (1 - 1e-9)
    assert rank_test(theirs, mine).p == pytest.approx(test.p)


def test_the_smallest_p_of_five_against_five() -> None:
    test = rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert test.p == pytest.approx(2 / 252)
    assert test.p == pytest.approx(test.least)


def test_equal_groups_are_not_told_apart() -> None:
    assert rank_test([4.0] * 5, [4.0] * 5).p == 1.0


def test_an_estimated_p_agrees_with_an_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0], [3.0, 9.0, 10.0, 6.0, 12.0, 11.0]
    exact = rank_test(first, second)
    monkeypatch.setattr(statistics, "MOST_EXACT", 900)
    estimated = rank_test(first, second)
    assert exact.exact
    assert not estimated.exact
    assert estimated.p == pytest.approx(exact.p, abs=0.04)
    assert rank_test([1.0] * 20, [2.0] * 20).p > 0  # an estimate is never 0


def test_a_test_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="without values"):
        rank_test([], [1.0])


def test_false_alarms_are_no_more_than_promised() -> None:
    generator = np.random.default_rng(3)
    draws = generator.lognormal(0.0, 0.5, (1500, 10))
    alarms = [rank_test(d[:5].tolist(), d[5:].tolist()).p <= 0.05 for d in draws]
    assert np.mean(alarms) <= 0.05


@given(st.integers(1, 6), st.integers(1, 6))
def test_the_distribution_of_u_is_that_of_all_assignments(n: int, m: int) -> None:
    counts = statistics._rank_sum_counts(n, m)
    seen = [0] * (n * m + 1)
    for chosen in itertools.combinations(range(n + m), n):
        seen[sum(chosen) - n * (n - 1) // 2] += 1
    assert counts == seen
    assert sum(counts) == math.comb(n + m, n)


@given(values, values)
def test_a_quotient_and_its_interval(first: list[float], second: list[float]) -> None:
    found = quotient(first, second)
    assert found is not None
    assert found.interval.low <= found.value <= found.interval.high
    inverse = quotient(second, first)
    assert inverse is not None
    assert inverse.interval.low == pytest.approx(1 / found.interval.high)
    assert inverse.interval.high == pytest.approx(1 / found.interval.low)
    assert 0 <= found.interval.coverage <= 1


def test_quotients_are_of_five_against_five() -> None:
    found = quotient([10, 11, 12, 13, 14], [20, 22, 24, 26, 28])
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=0.02)
    # U has 252 assignments; 2 * (1 + 1 + 2) of them are left out: 0.968.
    assert found.interval.coverage == pytest.approx(1 - 2 * 4 / 252)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=6, unique=True),
    st.lists(st.integers(1, 40), min_size=2, max_size=6, unique=True),
)
def test_the_interval_leaves_1_out_only_where_the_test_objects(first: list[int], second: list[int]) -> None:
    mine, theirs = [float(x) for x in first], [x + 0.5 for x in second]
    found = quotient(mine, theirs)
    assert found is not None
    if found.interval.coverage >= 0.95 and not found.interval.low <= 1 <= found.interval.high:
        assert rank_test(mine, theirs).p <= 1 - found.interval.coverage + 1e-9


def test_no_quotient_of_what_is_zero() -> None:
    assert quotient([0.0, 1.0], [1.0]) is None
    assert quotient([], [1.0]) is None


def test_the_empirical_distribution() -> None:
    assert statistics.cumulative([3.0, 1.0]) == [(1.0, 0.5), (3.0, 1.0)]


# --- growth

GIB = 1 << 30


def plane(total: float, used: float) -> float:
    return 50 + 7 * total + 300 * used


def test_a_plane_is_found_again() -> None:
    generator = np.random.default_rng(5)
    samples = [
        growth.Sample(total * GIB, used * GIB, plane(total, used) + generator.normal(0, 1))
        for total in (1, 2, 4, 8)
        for used in (0.1, 0.4, 0.2)
        for _ in range(3)
    ]
    found = growth.fit(samples)
    assert found is not None
    assert found.by_total is not None
    assert found.by_used is not None
    assert found.by_total.per_gib == pytest.approx(7, abs=0.5)
    assert found.by_used.per_gib == pytest.approx(300, abs=8)
    assert found.by_total.interval is not None
    assert found.by_total.interval.low < 7 < found.by_total.interval.high
    assert found.explained > 0.99


def test_where_the_use_grows_in_step_only_one_effect_is_told() -> None:
    samples = [
        growth.Sample(total * GIB, 0.3 * total * GIB, 100 * total) for total in (1, 2, 4) for _ in range(2)
    ]
    found = growth.fit(samples)
    assert found is not None
    assert found.by_total is None
    assert found.by_used is not None
    assert found.by_used.per_gib == pytest.approx(100 / 0.3)


def test_where_the_use_is_the_same_only_the_total_is() -> None:
    samples = [growth.Sample(total * GIB, 0.3 * GIB, 20 + 5 * total) for total in (1, 2, 4) for _ in range(2)]
    found = growth.fit(samples)
    assert found is not None
    assert found.by_used is None
    assert found.by_total is not None
    assert found.by_total.per_gib == pytest.approx(5)
    assert found.fixed == pytest.approx(20)


def test_one_size_is_no_growth_and_one_run_has_no_interval() -> None:
    assert growth.fit([growth.Sample(GIB, GIB / 2, 1.0)] * 3) is None
    found = growth.fit([growth.Sample(size * GIB, 0.1 * GIB, float(size)) for size in (1, 2)])
    assert found is not None
    assert found.by_total is not None
    assert found.by_total.interval is None


def test_doublings() -> None:
    assert growth.doublings({GIB: 2.0, 2 * GIB: 3.0, 3 * GIB: 9.0, 4 * GIB: 3.0}) == [
        (GIB, 2 * GIB, 1.5),
        (2 * GIB, 4 * GIB, 1.0),
    ]


def test_intervals_are_values() -> None:
    assert Interval(1, 2, 0.5) == Interval(1, 2, 0.5)
