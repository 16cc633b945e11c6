# SPDX-License-Identifier: GPL-2.0-or-later
"""A comparison of two benches, for people and for programs.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from harness.bench import show
from harness.bench.compare import BenchComparison, Change
from harness.bench.markdown import markdown_table

_ORDER = ("worse", "unclear", "moved", "better")


def comparison_document(comparison: BenchComparison) -> dict[str, object]:
    """Everything, measure by measure."""
    return {
        "compared": comparison.compared,
        "alpha": comparison.alpha,
        "expected_by_chance": comparison.expected_by_chance,
        "broken": list(comparison.broken),
        "missing": list(comparison.missing),
        "exit_code": int(comparison.exit_code),
        "measures": [asdict(one) for one in comparison.moved],
    }


def comparison_lines(comparison: BenchComparison) -> Iterator[str]:
    """What moved, and what that is worth."""
    yield from (f"fewer runs pass: {text}" for text in comparison.broken)
    moved = sorted(
        (one for one in comparison.moved if one.kind != "same"),
        key=lambda one: (_ORDER.index(one.kind), not one.gate),
    )
    if moved:
        yield markdown_table(
            ["", "point", "measure", "before", "after", "change", "p"],
            (_row(one) for one in moved),
        )
    worse = sum(one.kind == "worse" for one in comparison.moved)
    better = sum(one.kind == "better" for one in comparison.moved)
    yield (
        f"{comparison.compared} comparisons: {worse} worse, {better} better; were nothing changed, "
        f"{comparison.expected_by_chance:.1f} would be called worse by chance"
    )
    if any(one.kind == "unclear" for one in comparison.moved):
        yield (
            "unclear: the runs are apart, but there are too few for a test to say so at "
            f"p = {comparison.alpha:g}; five on each side are enough"
        )
    if comparison.missing:
        yield f"in one bench only: {', '.join(comparison.missing)}"


def _row(one: Change) -> list[str]:
    change = f"{100 * (one.after / one.before - 1):+.1f} %" if one.before else "-"
    word = one.kind + (" *" if one.gate and one.kind == "worse" else "")
    numbers = (show.format_value(one.before, one.unit), show.format_value(one.after, one.unit))
    return [word, one.point, one.measure, *numbers, change, f"{one.p:.3f}"]
