# SPDX-License-Identifier: GPL-2.0-or-later
"""How measures moved over time, and over builds of QEMU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from harness.history.ask import RIGHT_OUTCOMES, Selection, label_of
from harness.history.changes import ChangePoint, change_points
from harness.history.schema import KEPT_BATCHES, KEPT_RUNS, MEASURED


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A measure of a scenario in one way, over time.  ``memory``: the guest's, in bytes."""

    scenario: str
    label: str
    accelerator: str
    memory: int
    measure: str
    times: tuple[datetime, ...]
    values: tuple[float, ...]
    #: Of each value: the QEMU and its build.
    builds: tuple[str, ...] = field(repr=False)
    changes: tuple[ChangePoint, ...] = ()


#: What is looked at unless another is named; docs/bench.md says what each is.
WATCHED: Final = ("total_ms", "downtime_ms", "sent_bytes", "skipped_pages", "rounds")


def measure_rows(
    connection: Connection, chosen: Selection, measures: Sequence[str] = WATCHED
) -> Iterator[MeasureRow]:
    """Each measure of each scenario, label, accelerator and size, over all QEMUs, with its changes.

    Only right runs count: a wrong one may have ended early.
    """
    query = chosen.of(
        select(
            KEPT_RUNS.c.scenario,
            KEPT_RUNS.c.name,
            KEPT_RUNS.c.accelerator,
            KEPT_RUNS.c.memory,
            MEASURED.c.name.label("measure"),
            KEPT_RUNS.c.began,
            MEASURED.c.value,
            KEPT_RUNS.c.qemu,
            KEPT_RUNS.c.build,
        )
        .join(KEPT_RUNS, MEASURED.c.run_id == KEPT_RUNS.c.id)
        .join(KEPT_BATCHES, KEPT_RUNS.c.batch_id == KEPT_BATCHES.c.id)
        .where(MEASURED.c.name.in_(measures), KEPT_RUNS.c.outcome.in_(RIGHT_OUTCOMES))
    )
    rows = connection.execute(query.order_by(KEPT_RUNS.c.began, KEPT_RUNS.c.id)).all()

    def way(row: Row[Any]) -> tuple[str, str, str, int, str]:
        return row.scenario, label_of(row.name), row.accelerator, row.memory, row.measure

    for key, some in groupby(sorted(rows, key=way), way):
        values = list(some)
        numbers = tuple(row.value for row in values)
        yield MeasureRow(
            *key,
            times=tuple(row.began for row in values),
            values=numbers,
            builds=tuple(f"{row.qemu} {row.build[:8]}".strip() for row in values),
            changes=tuple(change_points(numbers)),
        )
