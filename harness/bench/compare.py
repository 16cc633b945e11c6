# SPDX-License-Identifier: GPL-2.0-or-later
"""Two benches, measure by measure: what moved beyond noise.  Pure.

A measure has moved where both hold:

* by ranks, chance alone would separate the two groups of runs as far in at most
  ``alpha`` of all cases; and
* the medians differ by at least ``threshold``: what is real and too small to matter
  is no regression.

Many comparisons are made at once, so :class:`BenchComparison` says how many of them
would move by chance alone.  Where there are too few runs for any p to reach
``alpha``, a change beyond the threshold is ``unclear``: nobody can tell whether the measure moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from harness.bench import statistics
from harness.bench.document import BenchDocument, BenchPoint
from harness.bench.measures import MEASURES, BenchMeasure
from harness.bench.summarise import counted_values
from harness.errors import ExitCode, InputError

ALPHA: Final = 0.01
THRESHOLD: Final = 0.05
_Kind = Literal["worse", "better", "moved", "unclear", "same"]


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one point in both benches."""

    point: str
    measure: str
    unit: str
    gate: bool
    before: float
    after: float
    p: float
    least_p: float
    kind: _Kind


@dataclass(frozen=True, slots=True)
class BenchComparison:
    """Everything that was compared."""

    moved: tuple[Change, ...]
    compared: int
    alpha: float
    #: Points that are in one bench only.
    missing: tuple[str, ...]
    #: Points in which fewer runs pass than did.
    broken: tuple[str, ...]

    @property
    def expected_by_chance(self) -> float:
        """How many comparisons would be called worse if nothing had changed at all."""
        return self.compared * self.alpha / 2

    @property
    def exit_code(self) -> ExitCode:
        """1 where a measure that gates got worse, or runs no longer pass; 4 where too few runs say so."""
        if self.broken or any(one.kind == "worse" and one.gate for one in self.moved):
            return ExitCode.FAIL
        if any(one.kind == "unclear" and one.gate for one in self.moved):
            return ExitCode.INCONCLUSIVE
        return ExitCode.PASS


def _key(point: BenchPoint) -> tuple[str, str, int, str]:
    return point.scenario, point.arm, point.memory_bytes, point.accelerator


def _label(key: tuple[str, str, int, str]) -> str:
    scenario, arm, memory, accelerator = key
    return f"{scenario} {memory / 2**30:g}GiB {arm} {accelerator}"


def compare_benches(
    before: BenchDocument, after: BenchDocument, *, alpha: float = ALPHA, threshold: float = THRESHOLD
) -> BenchComparison:
    """Compare two benches.  Raises :class:`InputError` if they have no point in common."""
    old = {_key(point): point for point in before.points}
    new = {_key(point): point for point in after.points}
    common = [key for key in old if key in new]
    if not common:
        raise InputError(
            "the two benches have no point in common: nothing can be compared",
            hint=f"the first has {', '.join(map(_label, old)) or 'none'}; "
            f"the second {', '.join(map(_label, new)) or 'none'}",
        )
    moved: list[Change] = []
    broken = []
    for key in common:
        if _passing(new[key]) < _passing(old[key]):
            broken.append(f"{_label(key)}: {_passes(old[key])} passed, now {_passes(new[key])}")
        moved += _of_point(old[key], new[key], alpha, threshold)
    missing = tuple(_label(key) for key in [*old, *new] if (key in old) != (key in new))
    return BenchComparison(tuple(moved), len(moved), alpha, missing, tuple(broken))


def _passing(point: BenchPoint) -> float:
    return sum(run.counted for run in point.runs) / len(point.runs) if point.runs else 0.0


def _passes(point: BenchPoint) -> str:
    return f"{sum(run.counted for run in point.runs)} of {len(point.runs)} runs"


def _of_point(old: BenchPoint, new: BenchPoint, alpha: float, threshold: float) -> Iterator[Change]:
    for measure in MEASURES:
        first, second = counted_values(old, measure.name), counted_values(new, measure.name)
        if not first or not second:
            continue
        test = statistics.rank_test(first, second)
        yield Change(
            point=_label(_key(old)),
            measure=measure.name,
            unit=measure.unit,
            gate=measure.gate,
            before=statistics.median(first),
            after=statistics.median(second),
            p=test.p,
            least_p=test.least,
            kind=_kind(measure, first, second, test, alpha, threshold),
        )


def _kind(
    measure: BenchMeasure,
    first: Sequence[float],
    second: Sequence[float],
    test: statistics.Test,
    alpha: float,
    threshold: float,
) -> _Kind:
    before, after = statistics.median(first), statistics.median(second)
    if abs(after - before) <= threshold * max(abs(before), abs(after)):
        return "same"
    if test.p > alpha:
        # Apart altogether, and yet no p can say so: more runs would tell.
        apart = max(first) < min(second) or max(second) < min(first)
        return "unclear" if test.least > alpha and apart else "same"
    if measure.better == "neither":
        return "moved"
    return "better" if (after < before) == (measure.better == "less") else "worse"
