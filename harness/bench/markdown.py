# SPDX-License-Identifier: GPL-2.0-or-later
"""A table for a mailing list: plain text that is a Markdown table as well, at most some 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from harness.bench import show
from harness.bench.document import BenchDocument, BenchPoint, Contrast

COLUMNS: Final = (
    ("total_ms", "total"),
    ("downtime_ms", "down"),
    ("sent_bytes", "sent"),
    ("sent_over_floor", "(sent-head)/floor"),
    ("host_cpu_s", "host CPU"),
    ("memfree_taken_bytes", "MemFree taken"),
)

_KINDS: Final = {"total_ms": "time", "sent_bytes": "bytes"}


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    padded = [
        "| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def to_markdown(document: BenchDocument) -> str:
    """The whole bench, briefly."""
    parts = []
    for scenario, memory, accelerator in dict.fromkeys(
        (p.scenario, p.memory_bytes, p.accelerator) for p in document.points
    ):
        case = (scenario, memory, accelerator)
        points = [p for p in document.points if (p.scenario, p.memory_bytes, p.accelerator) == case]
        contrasts = [c for c in document.contrasts if (c.scenario, c.memory_bytes, c.accelerator) == case]
        parts.append(_case(points, contrasts))
    parts.append(_goals(document))
    parts.append(_how(document))
    return "\n\n".join(part for part in parts if part) + "\n"


def _case(points: Sequence[BenchPoint], contrasts: Sequence[Contrast]) -> str:
    first = points[0]
    shown = [column for column in COLUMNS if any(p.median.get(column[0]) is not None for p in points)]
    rows = []
    for point in points:
        cells = []
        for name, _ in shown:
            value, interval = show.cell(point, name)
            cells.append(f"{value} [{interval}]" if interval and interval != value else value)
        rows.append([point.arm, show.outcome(point), *cells])
    headings = ["arm", "runs", *(heading for _, heading in shown)]
    title = f"{first.scenario}, {show.size(first.memory_bytes)}, {first.accelerator}"
    lines = [title, "", markdown_table(headings, rows)]
    notes = [
        f"  {c.first} against {c.second}: {c.quotient:.2f} times the {_KINDS[c.measure]}"
        f"{_between(c)}, p {show.p_value(c.p)}"
        for c in contrasts
        if c.measure in _KINDS and c.quotient is not None
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _between(contrast: Contrast) -> str:
    found = contrast.interval
    return "" if found is None else f" ({found.low:.2f} to {found.high:.2f})"


def _goals(document: BenchDocument) -> str:
    if not document.goals:
        return ""
    rows = [
        [goal.outcome, goal.scenario, show.size(goal.memory_bytes), goal.value, goal.text]
        for goal in document.goals
    ]
    return "Goals\n\n" + markdown_table(["outcome", "scenario", "memory", "measured", "goal"], rows)


def _how(document: BenchDocument) -> str:
    coverage = sorted(
        {
            round(100 * found.coverage, 1)
            for point in document.points
            for found in point.interval.values()
            if found is not None
        }
    )
    host = document.host
    lines = [
        "Medians over the runs that pass, in brackets the interval of the median",
        f"(order statistics; coverage {', '.join(f'{value:g}' for value in coverage)} %)."
        if coverage
        else "",
        f"Host: {host.get('cpu')}, {host.get('cpus')} CPUs, kernel {host.get('kernel')}; "
        f"QEMU {_version(document, 'source_qemu')}, guest kernel {_release(document)}.",
        show.least_p(c.least_p for c in document.contrasts),
        *document.notes,
        f"Again: {document.command}",
    ]
    return "\n".join(line for line in lines if line)


def _version(document: BenchDocument, name: str) -> str:
    found = document.versions.get(name)
    return str(found.get("version", "?")) if isinstance(found, dict) else "?"


def _release(document: BenchDocument) -> str:
    found = document.versions.get("kernel")
    return str(found.get("release", "?")) if isinstance(found, dict) else "?"
