# SPDX-License-Identifier: GPL-2.0-or-later
"""From runs to a document: medians, intervals, contrasts between arms, growth.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.bench import growth, statistics
from harness.bench.document import (
    BenchDocument,
    BenchPoint,
    BenchRun,
    Contrast,
    Doubling,
    GrowthFit,
    Overhead,
    Range,
    Slope,
)
from harness.bench.goals import goals_of
from harness.bench.measures import MEASURES

#: Measures of which growth is fitted.
GROWING: Final = ("total_ms", "sent_bytes", "host_cpu_s", "walk_ms")
#: Pairs of arms that are set against each other: numerator, denominator.
PAIRS: Final = (("info", "off"), ("hint", "off"), ("info", "hint"))


@dataclass(frozen=True, slots=True)
class CountedRun:
    """A run that was made: which point, and what came of it."""

    scenario: str
    arm: str
    memory: int
    accelerator: str
    run: BenchRun


@dataclass(frozen=True, slots=True)
class BenchSetting:
    """What the document says of the bench as a whole."""

    started: str
    command: str
    seed: int
    strict: bool
    host: Mapping[str, Any]
    versions: Mapping[str, Any]
    overhead: Sequence[Overhead] = ()
    #: The order in which scenarios are shown.
    scenarios: Sequence[str] = ()
    notes: Sequence[str] = ()


def to_range(interval: statistics.Interval | None) -> Range | None:
    """The interval as the document has it."""
    if interval is None:
        return None
    return Range(low=interval.low, high=interval.high, coverage=round(interval.coverage, 4))


def counted_values(point: BenchPoint, measure: str) -> list[float]:
    """A measure of every run of a point that counts and has it."""
    values = (run.values.get(measure) for run in point.runs if run.counted)
    return [value for value in values if value is not None]


def to_points(made: Iterable[CountedRun], scenarios: Sequence[str] = ()) -> list[BenchPoint]:
    """Runs by point, in the order of ``scenarios``; medians over those that count."""
    groups: dict[tuple[str, int, str, str], list[BenchRun]] = {}
    for one in made:
        groups.setdefault((one.scenario, one.memory, one.accelerator, one.arm), []).append(one.run)
    arms = {"off": 0, "hint": 1, "info": 2}
    first = {name: index for index, name in enumerate(scenarios)}
    ordered = sorted(
        groups.items(),
        key=lambda item: (
            first.get(item[0][0], len(first)),
            *item[0][:2],
            arms.get(item[0][3], len(arms)),
        ),
    )
    points = []
    for (scenario, memory, accelerator, arm), runs in ordered:
        bare = BenchPoint(
            scenario=scenario,
            arm=arm,
            memory_bytes=memory,
            accelerator=accelerator,
            runs=sorted(runs, key=lambda run: run.number),
            median={},
            interval={},
        )
        values = {measure.name: counted_values(bare, measure.name) for measure in MEASURES}
        median = {name: statistics.median(found) if found else None for name, found in values.items()}
        interval = {name: to_range(statistics.median_interval(found)) for name, found in values.items()}
        points.append(bare.model_copy(update={"median": median, "interval": interval}))
    return points


def contrasts_of(points: Sequence[BenchPoint]) -> list[Contrast]:
    """Every pair of arms, by every measure that both have."""
    found = []
    by_arm = {(p.scenario, p.memory_bytes, p.accelerator, p.arm): p for p in points}
    for scenario, memory, accelerator in dict.fromkeys(
        (p.scenario, p.memory_bytes, p.accelerator) for p in points
    ):
        for first, second in PAIRS:
            one = by_arm.get((scenario, memory, accelerator, first))
            other = by_arm.get((scenario, memory, accelerator, second))
            if one is None or other is None:
                continue
            for measure in MEASURES:
                mine, theirs = counted_values(one, measure.name), counted_values(other, measure.name)
                if not mine or not theirs:
                    continue
                test = statistics.rank_test(mine, theirs)
                ratio = statistics.quotient(mine, theirs)
                found.append(
                    Contrast(
                        scenario=scenario,
                        memory_bytes=memory,
                        accelerator=accelerator,
                        measure=measure.name,
                        first=first,
                        second=second,
                        quotient=ratio.value if ratio else None,
                        interval=to_range(ratio.interval) if ratio else None,
                        p=test.p,
                        least_p=test.least,
                    )
                )
    return found


def floors_by_seed(points: Iterable[BenchPoint]) -> dict[int, float]:
    """The floor that arm info tells, by the seed that it shares with the other arms' runs."""
    return {
        run.seed: value
        for point in points
        for run in point.runs
        if run.counted and (value := run.values.get("floor_bytes")) is not None
    }


def _used(run: BenchRun, floors: Mapping[int, float]) -> float | None:
    """The memory in use, which is what had to be sent.  Runs with one seed have one content in every arm."""
    own = run.values.get("floor_bytes")
    return own if own is not None else floors.get(run.seed)


def growth_of(points: Sequence[BenchPoint]) -> tuple[list[GrowthFit], list[Doubling]]:
    """Fits and doublings of every scenario and arm that was measured at several sizes."""
    floors = floors_by_seed(points)
    series: dict[tuple[str, str, str], list[BenchPoint]] = {}
    for point in points:
        series.setdefault((point.scenario, point.arm, point.accelerator), []).append(point)
    fits: list[GrowthFit] = []
    doublings: list[Doubling] = []
    for (scenario, arm, accelerator), sizes in series.items():
        if len({point.memory_bytes for point in sizes}) < 2:
            continue
        for measure in GROWING:
            samples = [
                growth.Sample(point.memory_bytes, used, value)
                for point in sizes
                for run in point.runs
                if run.counted
                and (value := run.values.get(measure)) is not None
                and (used := _used(run, floors)) is not None
            ]
            found = growth.fit(samples) if samples else None
            if found is not None:
                fits.append(_to_fit(scenario, arm, accelerator, measure, found))
        doublings += _doublings(scenario, arm, sizes, floors)
    return fits, doublings


def _to_fit(scenario: str, arm: str, accelerator: str, measure: str, found: growth.Fit) -> GrowthFit:
    def slope(coefficient: growth.Coefficient | None) -> Slope | None:
        if coefficient is None:
            return None
        return Slope(per_gib=coefficient.per_gib, interval=to_range(coefficient.interval))

    return GrowthFit(
        scenario=scenario,
        arm=arm,
        accelerator=accelerator,
        measure=measure,
        fixed=found.fixed,
        by_total=slope(found.by_total),
        by_used=slope(found.by_used),
        explained=found.explained,
        runs=found.runs,
    )


def _doublings(
    scenario: str,
    arm: str,
    sizes: Sequence[BenchPoint],
    floors: Mapping[int, float],
) -> list[Doubling]:
    used: dict[int, float] = {}
    per_floor: dict[int, float] = {}
    for point in sizes:
        pairs = [
            (floor, time)
            for run in point.runs
            if run.counted
            and (floor := _used(run, floors))
            and (time := run.values.get("total_ms")) is not None
        ]
        if pairs:
            used[point.memory_bytes] = statistics.median([floor for floor, _ in pairs])
            per_floor[point.memory_bytes] = statistics.median([time / floor for floor, time in pairs])
    series = {
        "sent_over_floor": {p.memory_bytes: v for p in sizes if (v := p.median.get("sent_over_floor"))},
        "total_ms_per_floor_byte": per_floor,
    }
    return [
        Doubling(
            scenario=scenario,
            arm=arm,
            measure=measure,
            memory_bytes=small,
            used_factor=used[large] / used[small] if small in used and large in used else None,
            factor=factor,
        )
        for measure, medians in series.items()
        for small, large, factor in growth.doublings(medians)
    ]


def summarise_bench(setting: BenchSetting, made: Iterable[CountedRun]) -> BenchDocument:
    """Everything that can be said of these runs."""
    points = to_points(made, setting.scenarios)
    contrasts = contrasts_of(points)
    fits, doublings = growth_of(points)
    return BenchDocument(
        started=setting.started,
        command=setting.command,
        seed=setting.seed,
        strict=setting.strict,
        host=dict(setting.host),
        versions=dict(setting.versions),
        points=points,
        contrasts=contrasts,
        growth=fits,
        doublings=doublings,
        goals=goals_of(points, contrasts, doublings),
        overhead=list(setting.overhead),
        notes=list(setting.notes),
    )
