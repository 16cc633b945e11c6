# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured of a run, by name.  Pure: a result in, numbers out.

Every measure is a number of one run or None where that run does not have it.  The
names are those of the JSON document; docs/bench.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from harness.report.result import Result

Better = Literal["less", "more", "neither"]


@dataclass(frozen=True, slots=True)
class BenchMeasure:
    """One measure.  ``gate``: whether ``bench compare`` fails over it."""

    name: str
    unit: str
    better: Better
    words: str
    read: Callable[[Result], float | None]
    gate: bool = False


def _total(result: Result) -> float:
    # The holds are the oracle's, not the migration's.
    return result.moved_time.total_ms - result.moved_time.held_ms


def _ratio(result: Result) -> float | None:
    return result.moved_bytes.sent_over_floor if result.moved_bytes.floor_by != "none" else None


def _floor(result: Result) -> float | None:
    return result.moved_bytes.floor if result.moved_bytes.floor_by != "none" else None


def _head_ms(result: Result) -> float | None:
    """The head in time of the link: what it sent, at the rate of the whole migration."""
    if result.arm != "info" or not result.moved_bytes.sent or _total(result) <= 0:
        return None
    return result.moved_bytes.head / (result.moved_bytes.sent / _total(result))


def _cpu(side: Literal["source", "destination"], field: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        part = getattr(result.cost, side) if result.cost is not None else None
        return float(getattr(part, field)) if part is not None else None

    return read


def _both_cpu(result: Result) -> float | None:
    parts = (_cpu("source", "cpu_seconds")(result), _cpu("destination", "cpu_seconds")(result))
    return None if None in parts else sum(part for part in parts if part is not None)


def _host_cpu(result: Result) -> float | None:
    """Of both QEMUs, without what runs the guest's own processors."""
    if result.cost is None or result.cost.source is None or result.cost.destination is None:
        return None
    sides = (result.cost.source, result.cost.destination)
    return sum(side.cpu_seconds - side.vcpu_seconds for side in sides)


def _rate(window: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        if result.work is None or not result.work.unit:
            return None
        found = getattr(result.work, window)
        return float(found.rate) if found is not None else None

    return read


def _slowdown(result: Result) -> float | None:
    """By which share of its rate before the guest was slower during the migration."""
    before, during = _rate("before")(result), _rate("during")(result)
    return None if not before or during is None else 100 * (1 - during / before)


def _lowest_free(result: Result) -> float | None:
    found = result.work.during if result.work is not None else None
    return found.lowest_free_bytes if found is not None else None


def _stolen(result: Result) -> float | None:
    lowest, work = _lowest_free(result), result.work
    if lowest is None or work is None or work.before is None:
        return None
    return work.before.lowest_free_bytes - lowest


def _gap(result: Result) -> float | None:
    found = result.work.during if result.work is not None else None
    return found.longest_gap_ms if found is not None else None


def _walk(field: str) -> Callable[[Result], float | None]:
    return lambda result: float(getattr(result.walk, field)) if result.walk is not None else None


def _top_order(result: Result) -> float | None:
    """Of the free memory, the share in blocks of the largest order: all that upstream's hint can take."""
    blocks = result.free_blocks
    pages = sum(count << order for order, count in enumerate(blocks or ()))
    return 100 * (blocks[-1] << (len(blocks) - 1)) / pages if blocks and pages else None


def _skipped(result: Result) -> float:
    left = result.pages.explained.get("hinted", 0) if result.arm == "hint" else 0
    return result.pages.skipped + left


MEASURES: Final[tuple[BenchMeasure, ...]] = (
    BenchMeasure("total_ms", "ms", "less", "total time, without the oracle's holds", _total, gate=True),
    BenchMeasure("downtime_ms", "ms", "less", "down time", lambda r: r.moved_time.downtime_ms, gate=True),
    BenchMeasure("sent_bytes", "B", "less", "bytes sent", lambda r: r.moved_bytes.sent, gate=True),
    BenchMeasure("floor_bytes", "B", "neither", "floor: what had to be sent", _floor),
    BenchMeasure("sent_over_floor", "", "less", "(sent - head) / floor", _ratio, gate=True),
    BenchMeasure(
        "head_bytes", "B", "less", "head: free pages sent before the answer", lambda r: r.moved_bytes.head
    ),
    BenchMeasure("head_ms", "ms", "less", "head, in time of the link", _head_ms),
    BenchMeasure("full_pages", "", "less", "pages sent whole", lambda r: r.moved_bytes.full_pages),
    BenchMeasure("zero_pages", "", "less", "pages sent as zero", lambda r: r.moved_bytes.zero_pages),
    BenchMeasure("skipped_pages", "", "more", "pages left behind", _skipped),
    BenchMeasure("rounds", "", "neither", "rounds", lambda r: r.rounds),
    BenchMeasure("cpu_s", "s", "less", "CPU of both QEMUs", _both_cpu),
    BenchMeasure("host_cpu_s", "s", "less", "CPU of both QEMUs without vCPUs", _host_cpu, gate=True),
    BenchMeasure(
        "migration_cpu_s", "s", "less", "CPU of the source's migration", _cpu("source", "migration_seconds")
    ),
    BenchMeasure("source_rss_bytes", "B", "less", "peak RSS, source", _cpu("source", "peak_resident_bytes")),
    BenchMeasure(
        "destination_rss_bytes",
        "B",
        "less",
        "peak RSS, destination",
        _cpu("destination", "peak_resident_bytes"),
        gate=True,
    ),
    BenchMeasure("work_before", "1/s", "more", "work per second, before", _rate("before")),
    BenchMeasure("work_during", "1/s", "more", "work per second, during", _rate("during")),
    BenchMeasure("work_after", "1/s", "more", "work per second, after", _rate("after")),
    BenchMeasure("slowdown_percent", "%", "less", "guest slowdown during", _slowdown),
    BenchMeasure("guest_gap_ms", "ms", "less", "longest gap between two samples in the guest", _gap),
    BenchMeasure("memfree_lowest_bytes", "B", "more", "guest's MemFree at its lowest", _lowest_free),
    BenchMeasure("memfree_taken_bytes", "B", "less", "MemFree taken by the migration", _stolen, gate=True),
    BenchMeasure("walk_ms", "ms", "less", "the guest's longest walk", _walk("longest_ms")),
    BenchMeasure("answer_ms", "ms", "less", "from a request to its last chunk", _walk("answer_ms")),
    BenchMeasure("longest_hold_us", "us", "less", "longest hold of a zone's lock", _walk("longest_hold_us")),
    BenchMeasure(
        "top_order_percent", "%", "neither", "free memory in blocks of the largest order", _top_order
    ),
)
BY_NAME: Final[Mapping[str, BenchMeasure]] = {measure.name: measure for measure in MEASURES}


def values_of(result: Result) -> dict[str, float | None]:
    """Every measure of one run."""
    return {measure.name: measure.read(result) for measure in MEASURES}
