# SPDX-License-Identifier: GPL-2.0-or-later
"""Which plots a bench has: of each case, of its growth, of how free memory lies.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from harness.bench import plots, show, statistics
from harness.bench.document import BenchDocument, BenchPoint
from harness.bench.measures import BY_NAME
from harness.bench.summarise import counted_values

#: Of each case, if any arm has it.
BARS: Final = (
    "total_ms",
    "sent_bytes",
    "downtime_ms",
    "host_cpu_s",
    "memfree_taken_bytes",
    "destination_rss_bytes",
    "work_during",
)
GROWTH: Final = ("total_ms", "sent_bytes", "host_cpu_s", "walk_ms")


def _style(arm: str) -> str:
    # A word of the style sheet; a document may have been written by anybody.
    return arm if arm in ("off", "hint", "info") else "other"


def of_case(points: Sequence[BenchPoint]) -> list[Markup]:
    """Bars of the measures that matter, and the distribution of run times."""
    found = [
        _bars(points, name) for name in BARS if any(point.median.get(name) is not None for point in points)
    ]
    series = [
        plots.Series(
            point.arm,
            _style(point.arm),
            tuple((value, share, None, None) for value, share in statistics.cumulative(values)),
        )
        for point in points
        if (values := counted_values(point, "total_ms"))
    ]
    if series:
        found.append(
            Markup(  # noqa: S704 - our own, with every text in it escaped
                plots.steps(
                    "share of runs that took at most ...", series, lambda v: show.format_value(v, "ms")
                )
            )
        )
    return found


def _bars(points: Sequence[BenchPoint], name: str) -> Markup:
    measure = BY_NAME[name]
    rows = []
    for point in points:
        interval = point.interval.get(name)
        rows.append(
            plots.Bar(
                label=point.arm,
                style=_style(point.arm),
                value=point.median.get(name),
                low=interval.low if interval else None,
                high=interval.high if interval else None,
                dots=tuple(counted_values(point, name)),
                text=show.format_value(point.median.get(name), measure.unit)
                if point.median.get(name) is not None
                else "no run that counts",
            )
        )
    mark = None
    if name == "sent_bytes":
        floors = [value for point in points for value in counted_values(point, "floor_bytes")]
        if floors:
            floor = statistics.median(floors)
            mark = (floor, f"floor: {show.format_value(floor, 'B')}")
    text = plots.bars(measure.words, rows, lambda v: show.format_value(v, measure.unit), mark)
    return Markup(text)  # noqa: S704 - our own, with every text in it escaped


def growth(document: BenchDocument) -> list[Markup]:
    """Each growing measure against total memory, scenario by scenario."""
    found = []
    for scenario in dict.fromkeys(point.scenario for point in document.points):
        mine = [point for point in document.points if point.scenario == scenario]
        if len({point.memory_bytes for point in mine}) < 2:
            continue
        for name in GROWTH:
            series = []
            for arm in dict.fromkeys(point.arm for point in mine):
                at = []
                for point in mine:
                    value, interval = point.median.get(name), point.interval.get(name)
                    if point.arm == arm and value is not None:
                        low, high = (interval.low, interval.high) if interval else (None, None)
                        at.append((float(point.memory_bytes), value, low, high))
                if at:
                    series.append(plots.Series(arm, _style(arm), tuple(sorted(at))))
            if series:
                unit = BY_NAME[name].unit
                text = plots.line_plot(
                    f"{scenario}: {BY_NAME[name].words}",
                    series,
                    lambda v: show.size(int(v)),
                    lambda v, unit=unit: show.format_value(v, unit),  # type: ignore[misc]
                )
                found.append(Markup(text))  # noqa: S704 - likewise
    return found


def orders(document: BenchDocument) -> list[Markup]:
    """How free memory lies, for each scenario and size: the first run that tells it."""
    found = []
    for scenario, memory in dict.fromkeys((p.scenario, p.memory_bytes) for p in document.points):
        blocks = next(
            (
                run.free_blocks
                for point in document.points
                if (point.scenario, point.memory_bytes) == (scenario, memory)
                for run in point.runs
                if run.counted and run.free_blocks
            ),
            None,
        )
        if blocks is None:
            continue
        pages = [count << order for order, count in enumerate(blocks)]
        whole = sum(pages) or 1
        shares = [100 * count / whole for count in pages]
        title = f"{scenario}, {show.size(memory)}: {shares[-1]:.1f} % in blocks of order {len(blocks) - 1}"
        text = plots.columns(title, shares, [str(order) for order in range(len(blocks))], "info")
        found.append(Markup(text))  # noqa: S704 - likewise
    return found
