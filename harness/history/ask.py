# SPDX-License-Identifier: GPL-2.0-or-later
"""What the store is asked: the state of each scenario, single runs, the batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select

from harness.history.rates import FailureRate, failure_rate
from harness.history.schema import KEPT_BATCHES, KEPT_RUNS
from harness.history.store import Store

#: Outcomes that say something about the scenario; the others say something about the machine.
_JUDGED: Final = ("pass", "expected", "fail", "inconclusive")
_REPEAT: Final = re.compile(r"#[0-9]+$")
RIGHT_OUTCOMES: Final = ("pass", "expected", "skipped")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs are asked for; what is None or empty chooses nothing out.

    ``qemu``: any part of a QEMU's words, such as ``10.0`` or ``debian:trixie``.
    """

    scenario: str | None = None
    qemu: str | None = None
    rule: str | None = None
    kind: str | None = None
    since: datetime | None = None

    def of(self, query: Select[Any]) -> Select[Any]:
        """The query, of these runs alone; it has :data:`KEPT_RUNS` and :data:`KEPT_BATCHES`."""
        if self.scenario is not None:
            query = query.where(KEPT_RUNS.c.scenario == self.scenario)
        if self.qemu is not None:
            query = query.where(KEPT_RUNS.c.qemu.contains(self.qemu, autoescape=True))
        if self.rule is not None:
            query = query.where(KEPT_RUNS.c.rule == self.rule)
        if self.kind is not None:
            query = query.where(KEPT_BATCHES.c.kind == self.kind)
        if self.since is not None:
            query = query.where(KEPT_RUNS.c.began >= self.since)
        return query


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run, without its result."""

    id: int
    kind: str
    name: str
    scenario: str
    outcome: str
    reason: str
    rule: str | None
    seed: int | None
    arm: str
    memory: int
    accelerator: str
    qemu: str
    build: str
    kernel: str
    began: datetime
    seconds: float
    folder: str | None
    replay: str

    @property
    def right(self) -> bool:
        """Whether it went as it should."""
        return self.outcome in RIGHT_OUTCOMES

    @property
    def label(self) -> str:
        """Its name without the number of the repeat: the same for all runs that are made alike."""
        return label_of(self.name)


def label_of(name: str) -> str:
    """A run's name without the number of the repeat."""
    return _REPEAT.sub("", name)


_COLUMNS: Final = tuple(
    KEPT_BATCHES.c.kind if name == "kind" else KEPT_RUNS.c[name] for name in PastRun.__dataclass_fields__
)


@dataclass(frozen=True, slots=True)
class ScenarioState:
    """All runs of a scenario in one way: the same label, accelerator and QEMU.

    ``failing_since``: when the first of its last runs began that all failed; None: the last one was right.
    ``good_until``: when the last right one before them began.  ``rules``: by which they failed.
    ``flaky``: whether one was right after another had failed, with one and the same build.
    """

    scenario: str
    label: str
    accelerator: str
    qemu: str
    runs: int
    rate: FailureRate
    errors: int
    last: datetime
    last_outcome: str
    failing_since: datetime | None
    good_until: datetime | None
    rules: tuple[str, ...]
    flaky: bool
    last_failure: datetime | None
    replay: str = ""


def past_runs(connection: Connection, chosen: Selection, most: int | None = None) -> list[PastRun]:
    """Runs in the order of time, of many the newest ``most``."""
    query = chosen.of(select(*_COLUMNS).join(KEPT_BATCHES, KEPT_RUNS.c.batch_id == KEPT_BATCHES.c.id))
    rows = connection.execute(query.order_by(KEPT_RUNS.c.began.desc(), KEPT_RUNS.c.id.desc()).limit(most))
    return [PastRun(*row) for row in rows][::-1]


def states(runs: Sequence[PastRun]) -> list[ScenarioState]:
    """The state of each scenario in each way; what fails comes first, then by name."""

    def way(run: PastRun) -> tuple[str, str, str, str]:
        return run.scenario, run.label, run.accelerator, run.qemu

    groups = groupby(sorted(runs, key=way), way)
    found = [_state(key, list(some)) for key, some in groups]
    return sorted(found, key=lambda one: (one.failing_since is None, one.scenario, one.label, one.qemu))


def _state(way: tuple[str, str, str, str], runs: Sequence[PastRun]) -> ScenarioState:
    judged = [run for run in runs if run.outcome in _JUDGED]
    wrong = [run for run in judged if not run.right]
    streak: list[PastRun] = []
    for run in reversed(judged):
        if run.right:
            break
        streak.insert(0, run)
    before = judged[: len(judged) - len(streak)]
    return ScenarioState(
        *way,
        runs=len(runs),
        rate=failure_rate(len(wrong), len(judged)),
        errors=sum(run.outcome in ("error", "refused") for run in runs),
        last=runs[-1].began,
        last_outcome=runs[-1].outcome,
        failing_since=streak[0].began if streak else None,
        good_until=before[-1].began if streak and before else None,
        rules=tuple(dict.fromkeys(run.rule or run.outcome for run in (streak or wrong))),
        flaky=_flaky(judged),
        last_failure=wrong[-1].began if wrong else None,
        replay=wrong[-1].replay if wrong else "",
    )


def _flaky(judged: Sequence[PastRun]) -> bool:
    # Right before and wrong ever since is no flake, though the build is the same: the machine has changed.
    failed: set[str] = set()
    for run in judged:
        if not run.right:
            failed.add(run.build)
        elif run.build in failed:
            return True
    return False


@dataclass(frozen=True, slots=True)
class PastBatch:
    """What one command has made, and how many of its runs ended in which way."""

    id: int
    kind: str
    name: str
    command: str
    shard: str | None
    began: datetime
    seconds: float | None
    exit_status: int | None
    interrupted: bool
    host: dict[str, Any]
    counts: dict[str, int]


def past_batches(connection: Connection, since: datetime | None = None) -> list[PastBatch]:
    """Batches, the newest first."""
    query = select(KEPT_RUNS.c.batch_id, KEPT_RUNS.c.outcome, func.count()).group_by(
        KEPT_RUNS.c.batch_id, KEPT_RUNS.c.outcome
    )
    counts: dict[int, dict[str, int]] = {}
    for batch, outcome, count in connection.execute(query):
        counts.setdefault(batch, {})[outcome] = count
    columns = [KEPT_BATCHES.c[name] for name in PastBatch.__dataclass_fields__ if name != "counts"]
    wanted = select(*columns).order_by(KEPT_BATCHES.c.began.desc(), KEPT_BATCHES.c.id.desc())
    if since is not None:
        wanted = wanted.where(KEPT_BATCHES.c.began >= since)
    rows = connection.execute(wanted).mappings()
    return [PastBatch(**row, counts=counts.get(row["id"], {})) for row in rows]


def current(store: Store, chosen: Selection) -> list[ScenarioState]:
    """The state of each scenario in a store."""
    with store.reading() as connection:
        return states(past_runs(connection, chosen))
