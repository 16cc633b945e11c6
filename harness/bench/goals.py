# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's goals, held against what was measured.  Pure.

A goal is met or missed where the whole interval says so, and undecided where the
interval has the limit inside it: five runs that straddle a limit decide nothing.
"Not slower beyond noise" is missed only where the interval lies above 1 altogether.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from harness.bench import statistics
from harness.bench.document import BenchPoint, Contrast, Doubling, Goal, Range

_GoalOutcome = Literal["met", "missed", "undecided"]

RATIO_LIMIT: Final = 1.05
HEAD_LIMIT_MS: Final = 150.0
BYTES_FACTOR: Final = 8.0
TIME_OF_HINT: Final = 0.5
SURPLUS_OF_HINT: Final = 0.25
SENT_GROWTH: Final = 0.05
TIME_GROWTH: Final = 0.10
#: What the kernel keeps for each page of memory grows with it, and is a part of the use.
_SAME_USE: Final = 0.5
_LEVEL: Final = 0.05


class _Case:
    """A scenario at a size, with its arms."""

    def __init__(
        self, scenario: str, memory: int, points: Sequence[BenchPoint], contrasts: Sequence[Contrast]
    ) -> None:
        self.scenario = scenario
        self.memory = memory
        self.arms = {point.arm: point for point in points}
        self._contrasts = {(c.first, c.second, c.measure): c for c in contrasts}

    def contrast(self, first: str, second: str, measure: str) -> Contrast | None:
        return self._contrasts.get((first, second, measure))

    def goal(self, text: str, value: str, outcome: _GoalOutcome) -> Goal:
        return Goal(text=text, scenario=self.scenario, memory_bytes=self.memory, value=value, outcome=outcome)

    def at_most(self, text: str, measure: str, limit: float, form: str) -> Iterator[Goal]:
        """Arm info's median of a measure has a limit."""
        info = self.arms.get("info")
        median = info.median.get(measure) if info is not None else None
        if info is not None and median is not None:
            interval = info.interval.get(measure)
            yield self.goal(text, _show(median, interval, form), _below(median, interval, limit))

    def quotient(self, text: str, first: str, second: str, measure: str, limit: float) -> Iterator[Goal]:
        """The quotient of two arms has a limit."""
        found = self.contrast(first, second, measure)
        if found is not None and found.quotient is not None:
            value = _show(found.quotient, found.interval, "{:.3f}")
            yield self.goal(text, value, _below(found.quotient, found.interval, limit))

    def not_slower(self, text: str, first: str, second: str) -> Iterator[Goal]:
        """One arm takes no more time than another, beyond noise."""
        found = self.contrast(first, second, "total_ms")
        if found is not None and found.quotient is not None:
            slower = found.interval is not None and found.interval.low > 1 and found.p <= _LEVEL
            # Of so few runs that no difference could be told from noise, none was told either.
            blind = found.least_p > _LEVEL
            outcome: _GoalOutcome = "missed" if slower else "undecided" if blind else "met"
            yield self.goal(text, _show(found.quotient, found.interval, "{:.2f}"), outcome)


def _show(value: float, interval: Range | None, form: str) -> str:
    around = "" if interval is None else f" [{form.format(interval.low)}, {form.format(interval.high)}]"
    return form.format(value) + around


def _below(value: float, interval: Range | None, limit: float) -> _GoalOutcome:
    low, high = (value, value) if interval is None else (interval.low, interval.high)
    if high <= limit:
        return "met"
    return "missed" if low > limit else "undecided"


def goals_of(
    points: Sequence[BenchPoint], contrasts: Sequence[Contrast], doublings: Sequence[Doubling]
) -> list[Goal]:
    """Every goal that these points say something about."""
    found: list[Goal] = []
    for scenario, memory in dict.fromkeys((p.scenario, p.memory_bytes) for p in points):
        case = _Case(
            scenario,
            memory,
            [p for p in points if (p.scenario, p.memory_bytes) == (scenario, memory)],
            [c for c in contrasts if (c.scenario, c.memory_bytes) == (scenario, memory)],
        )
        found += _of_case(case)
    return found + list(_of_growth(doublings))


def _of_case(case: _Case) -> Iterator[Goal]:
    ratio = f"info: (sent - head) / floor at most {RATIO_LIMIT}"
    if case.scenario == "freed":
        yield from case.at_most(ratio, "sent_over_floor", RATIO_LIMIT, "{:.3f}")
        few = f"info sends at most 1/{BYTES_FACTOR:.0f} of off's bytes"
        yield from _few(case, few)
        yield from _surplus(case)
        quick = f"info takes at most {TIME_OF_HINT} of hint's time"
        yield from case.quotient(quick, "info", "hint", "total_ms", TIME_OF_HINT)
    elif case.scenario == "fragmented":
        yield from case.at_most(ratio, "sent_over_floor", RATIO_LIMIT, "{:.3f}")
    elif case.scenario == "idle":
        yield from case.not_slower("info not slower than off", "info", "off")
        yield from case.quotient("info faster than hint", "info", "hint", "total_ms", 1.0)
    elif case.scenario in ("churn", "compile"):
        yield from case.not_slower("info not slower than off beyond noise", "info", "off")
    head = f"info: head at most {HEAD_LIMIT_MS:.0f} ms of link rate"
    yield from case.at_most(head, "head_ms", HEAD_LIMIT_MS, "{:.0f} ms")
    yield from _slowdown(case)


def _few(case: _Case, text: str) -> Iterator[Goal]:
    """Info's bytes divided by off's, and the floor's beside it, which alone may be beyond the limit."""
    off, info = case.arms.get("off"), case.arms.get("info")
    sent = off.median.get("sent_bytes") if off is not None else None
    floor = info.median.get("floor_bytes") if info is not None else None
    for goal in case.quotient(text, "info", "off", "sent_bytes", 1 / BYTES_FACTOR):
        if sent and floor is not None:
            goal = goal.model_copy(
                update={"value": f"{goal.value}; what has to be sent is {floor / sent:.3f}"}
            )
        yield goal


def _surplus(case: _Case) -> Iterator[Goal]:
    """What info and hint sent beyond the floor, run by run on the same content."""
    info, hint = case.arms.get("info"), case.arms.get("hint")
    if info is None or hint is None:
        return
    mine, theirs = _surpluses(info), _surpluses(hint)
    quotients = [mine[seed] / theirs[seed] for seed in mine if theirs.get(seed, 0) > 0]
    if quotients:
        value, interval = statistics.median(quotients), statistics.median_interval(quotients)
        shown = (
            None
            if interval is None
            else Range(low=interval.low, high=interval.high, coverage=interval.coverage)
        )
        yield case.goal(
            f"info's surplus over the floor at most {SURPLUS_OF_HINT} of hint's",
            _show(value, shown, "{:.3f}"),
            _below(value, shown, SURPLUS_OF_HINT),
        )


def _surpluses(point: BenchPoint) -> dict[int, float]:
    """Bytes beyond the floor, by the seed of the content."""
    found = {}
    for run in point.runs:
        sent, floor = run.values.get("sent_bytes"), run.values.get("floor_bytes")
        if run.counted and sent is not None and floor is not None:
            found[run.seed] = sent - floor
    return found


def _slowdown(case: _Case) -> Iterator[Goal]:
    found = case.contrast("info", "off", "work_during")
    if found is None or found.quotient is None:
        return
    slower = found.p <= _LEVEL and found.quotient < 1
    text = "guest slowdown of info against off not to be told from noise (work per second during)"
    outcome: _GoalOutcome = "missed" if slower else "undecided" if found.least_p > _LEVEL else "met"
    yield case.goal(text, f"{_show(found.quotient, found.interval, '{:.2f}')}, p = {found.p:.2g}", outcome)


def _of_growth(doublings: Sequence[Doubling]) -> Iterator[Goal]:
    limits = {
        "sent_over_floor": ("sent / floor changes by at most 5 %", SENT_GROWTH),
        "total_ms_per_floor_byte": ("time per floor byte changes by at most 10 %", TIME_GROWTH),
    }
    for one in doublings:
        if one.arm != "info" or one.measure not in limits:
            continue
        # Only where the use stayed: a workload that fills a share of memory says nothing of this.
        if one.used_factor is None or abs(one.used_factor - 1) > _SAME_USE:
            continue
        words, limit = limits[one.measure]
        yield Goal(
            text=f"info, memory doubled at equal use: {words}",
            scenario=one.scenario,
            memory_bytes=one.memory_bytes,
            value=f"{100 * (one.factor - 1):+.1f} %",
            outcome="met" if abs(one.factor - 1) <= limit else "missed",
        )
