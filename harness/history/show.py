# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``freepage history`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.history.ask import PastBatch, PastRun, ScenarioState

if TYPE_CHECKING:
    from harness.history.trend import MeasureRow


def when(time: datetime | None) -> str:
    """A time for people, in their own zone."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time is not None else ""


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they have to be."""
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def state_lines(states: Sequence[ScenarioState]) -> Iterator[str]:
    """What fails, since when, by which rule, on which QEMU; then what is flaky; then all."""
    failing = [one for one in states if one.failing_since is not None]
    if failing:
        yield "failing:"
        head = ("  run", "QEMU", "accel", "rule", "since", "last right", "failed (95 %)")
        yield from text_table(head, [_failing_row(one) for one in failing])
        yield ""
    flaky = [one for one in states if one.flaky]
    if flaky:
        yield "right and wrong with the same build:"
        yield from text_table(
            ("  run", "QEMU", "accel", "rule", "failed (95 %)"), [_flaky_row(one) for one in flaky]
        )
        yield ""
    yield from text_table(
        ("run", "QEMU", "accel", "runs", "failed (95 %)", "no verdict", "last", "at"),
        [_state_row(one) for one in states],
    )


def _failing_row(one: ScenarioState) -> Sequence[str]:
    since, until = when(one.failing_since), when(one.good_until) or "never"
    rules = ", ".join(one.rules)
    return f"  {one.label}", one.qemu, one.accelerator, rules, since, until, one.rate.words()


def _flaky_row(one: ScenarioState) -> Sequence[str]:
    return f"  {one.label}", one.qemu, one.accelerator, ", ".join(one.rules), one.rate.words()


def _state_row(one: ScenarioState) -> Sequence[str]:
    errors = str(one.errors) if one.errors else ""
    way = (one.label, one.qemu, one.accelerator)
    return (*way, str(one.runs), one.rate.words(), errors, one.last_outcome, when(one.last))


def state_document(states: Sequence[ScenarioState]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "version": 1,
        "runs": sum(one.runs for one in states),
        "failing": sum(one.failing_since is not None for one in states),
        "states": [_plain(asdict(one)) for one in states],
    }


def run_lines(runs: Sequence[PastRun]) -> Iterator[str]:
    """Single runs."""
    rows = [
        (when(one.began), one.outcome, one.name, one.qemu, one.accelerator, one.rule or "") for one in runs
    ]
    yield from text_table(("began", "outcome", "run", "QEMU", "accel", "rule"), rows)


def batch_lines(batches: Sequence[PastBatch]) -> Iterator[str]:
    """Batches, the newest first."""
    rows = []
    for one in batches:
        counts = ", ".join(f"{count} {word}" for word, count in sorted(one.counts.items()))
        status = "interrupted" if one.interrupted else "" if one.exit_status is None else str(one.exit_status)
        name = f"{one.name} {one.shard}" if one.shard else one.name
        rows.append((when(one.began), one.kind, name, counts, status))
    yield from text_table(("began", "kind", "name", "runs", "exit status"), rows)


def measure_lines(rows: Sequence[MeasureRow]) -> Iterator[str]:
    """Where measures have moved; then how many were looked at."""
    from harness.bench.measures import BY_NAME
    from harness.bench.show import format_value

    cells = []
    for row in rows:
        for change in row.changes:
            unit = BY_NAME[row.measure].unit
            cells.append(
                (
                    row.label,
                    row.accelerator,
                    row.measure,
                    f"{format_value(change.before, unit)} -> {format_value(change.after, unit)}",
                    when(row.times[change.at]),
                    row.builds[change.at],
                    f"{change.p:.2g}",
                )
            )
    if cells:
        yield from text_table(("run", "accel", "measure", "moved", "from", "QEMU and build", "p"), cells)
    counted = sum(len(row.values) for row in rows)
    yield f"{len(rows)} rows of {counted} values looked at; {len(cells)} changes beyond noise"


def measure_document(rows: Sequence[MeasureRow]) -> dict[str, Any]:
    """The same for programs."""
    return {"version": 1, "rows": [_plain(asdict(row)) for row in rows]}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def documents(values: Sequence[Any]) -> list[Any]:
    """Records as plain values."""
    return [_plain(asdict(one)) for one in values]
