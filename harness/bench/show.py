# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people: one way of writing each unit, everywhere the same.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.bench.document import BenchPoint, Range
from harness.bench.measures import BY_NAME

_MB = 1e6


def format_value(value: float | None, unit: str) -> str:
    """A value with its unit, to three or four digits; a dash where there is none."""
    if value is None:
        return "-"
    if value == 0:
        return {"": "0", "B": "0 MB", "us": "0 \N{MICRO SIGN}s", "1/s": "0/s"}.get(unit, f"0 {unit}")
    if unit == "B":
        return f"{value / _MB:,.1f} MB" if abs(value) < 100 * _MB else f"{value / _MB:,.0f} MB"
    if unit == "us":
        return f"{value:,.0f} \N{MICRO SIGN}s"
    if unit == "ms" and abs(value) >= 10_000:
        return f"{value / 1000:,.1f} s"
    if unit == "ms":
        return f"{value:,.0f} ms" if abs(value) >= 20 else f"{value:.1f} ms"
    if unit == "s":
        return f"{value:.2f} s"
    if unit == "%":
        return f"{value:.1f} %"
    if unit == "1/s":
        return f"{value:,.0f}/s" if abs(value) >= 20 else f"{value:.2f}/s"
    if unit == "":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"
    return f"{value:g} {unit}"


def interval(found: Range | None, unit: str) -> str:
    """An interval without a repeated unit: ``421 to 633 ms``."""
    if found is None:
        return ""
    low, high = format_value(found.low, unit), format_value(found.high, unit)
    if low == high:
        return high
    word, _, mark = low.partition(" ")
    return f"{word} to {high}" if mark and high.endswith(f" {mark}") else f"{low} to {high}"


def cell(point: BenchPoint, measure: str) -> tuple[str, str]:
    """A point's median and its interval, as words."""
    unit = BY_NAME[measure].unit
    return format_value(point.median.get(measure), unit), interval(point.interval.get(measure), unit)


def size(memory: int) -> str:
    """``2 GiB``."""
    return f"{memory / 2**30:g} GiB" if memory >= 2**30 else f"{memory / 2**20:g} MiB"


def outcome(point: BenchPoint) -> str:
    """How many runs count, and what the others were: ``4 of 5 (1 inconclusive)``."""
    counted = sum(run.counted for run in point.runs)
    others = [run.verdict for run in point.runs if not run.counted]
    words = ", ".join(f"{others.count(word)} {word}" for word in sorted(set(others)))
    return f"{counted} of {len(point.runs)}" + (f" ({words})" if words else "")


def p_value(p: float) -> str:
    """``= 0.008``, or ``< 0.001``."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def least_p(least: Iterable[float]) -> str:
    """The smallest p that so few runs can give, as words; empty where that is small enough."""
    lowest = max(least, default=0.0)
    return f"With so few runs no p can be below {lowest:.3f}." if lowest >= 0.001 else ""
