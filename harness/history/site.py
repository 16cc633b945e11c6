# SPDX-License-Identifier: GPL-2.0-or-later
"""The store as static pages: one for all, one a scenario, one a QEMU, one a night.

The pages refer to nothing outside of their folder and need no scripts.  All text that comes from runs is
escaped by the templates; plots are made here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.bench.measures import BY_NAME
from harness.bench.show import format_value
from harness.errors import InputError, MachineryError
from harness.history.ask import PastRun, Selection, past_batches, past_runs, states
from harness.history.plot import over_time
from harness.history.store import Store
from harness.history.trend import MeasureRow, measure_rows
from harness.units import human_size

#: On one page; all are in the store.
_MOST_RUNS: Final = 400
#: A file that says that the folder is ours, and may be written again.
_MARK: Final = "freepage-history"


@dataclass(frozen=True, slots=True)
class _Page:
    """One page: its path below the folder, its template and what that is given."""

    path: str
    template: str
    values: Mapping[str, Any]


def page_name(words: str) -> str:
    """A name for a file, readable, and different for different words."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:60]
    if plain == words:
        return plain
    return f"{plain}-{hashlib.blake2b(words.encode(), digest_size=4).hexdigest()}"


def write_site(store: Store, folder: Path, chosen: Selection) -> int:
    """Write the pages; how many.

    Raises :class:`InputError` for a folder that holds anything else.
    """
    _demand_ours(folder)
    environment = Environment(
        loader=PackageLoader("harness.history"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"page": page_name, "when": _when, "stamp": _stamp}
    environment.globals |= {"made": _when(datetime.now(UTC)), "store": store.name}
    with store.reading() as connection:
        runs = past_runs(connection, chosen)
        rows = list(measure_rows(connection, chosen))
        batches = past_batches(connection, chosen.since)
    count = 0
    for page in _pages(runs, rows, batches):
        path = folder / page.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(page.template).render(page.values), encoding="utf-8")
        except OSError as error:
            raise MachineryError(f"cannot write {path}: {error.strerror}") from error
        count += 1
    return count


def _demand_ours(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _MARK).exists():
            raise InputError(
                f"{folder} is not empty, and no site of ours", hint="give a folder that is new or empty"
            )
        (folder / _MARK).write_text(
            "Pages made by 'freepage history site'; they are written over.\n", "utf-8"
        )
    except OSError as error:
        raise InputError(f"cannot make a site in {folder}: {error.strerror}") from error


def _pages(runs: list[PastRun], rows: list[MeasureRow], batches: list[Any]) -> Iterable[_Page]:
    found = states(runs)
    nights = _by(runs, lambda run: run.began.date())
    scenarios = _by(runs, lambda run: run.scenario)
    qemus = _by(runs, lambda run: run.qemu or "not known")
    yield _Page(
        "index.html",
        "index.html.j2",
        {
            "up": "",
            "title": "Live migration, night by night",
            "runs": len(runs),
            "failing": [one for one in found if one.failing_since is not None],
            "flaky": [one for one in found if one.flaky],
            "scenarios": [(name, states(some)) for name, some in sorted(scenarios.items())],
            "qemus": [(name, states(some)) for name, some in sorted(qemus.items())],
            "nights": [(day, _counts(some)) for day, some in sorted(nights.items(), reverse=True)],
            "moved": [(row, change) for row in rows for change in row.changes],
        },
    )
    for name, some in scenarios.items():
        mine = [row for row in rows if row.scenario == name]
        yield _Page(
            f"scenario/{page_name(name)}.html",
            "group.html.j2",
            {**_group(f"Scenario {name}", some), "plots": [_plot(row) for row in mine]},
        )
    for name, some in qemus.items():
        yield _Page(
            f"qemu/{page_name(name)}.html", "group.html.j2", {**_group(f"QEMU {name}", some), "plots": []}
        )
    for day, some in nights.items():
        mine = [batch for batch in batches if batch.began.date() == day]
        values = {**_group(f"Night of {day:%Y-%m-%d}", some), "plots": [], "batches": mine}
        yield _Page(f"night/{day:%Y-%m-%d}.html", "group.html.j2", values)


def _group(title: str, runs: list[PastRun]) -> dict[str, Any]:
    shown = runs[::-1][:_MOST_RUNS]
    return {
        "up": "../",
        "title": title,
        "states": states(runs),
        "runs": shown,
        "left_out": len(runs) - len(shown),
        "wrong": [run for run in shown if not run.right],
        "batches": [],
    }


def _plot(row: MeasureRow) -> Markup:
    measure = BY_NAME[row.measure]
    size = f", {human_size(row.memory)}" if row.memory else ""
    title = f"{row.label} ({row.accelerator}{size}): {measure.words}"
    return Markup(over_time(title, row, partial(format_value, unit=measure.unit)))  # noqa: S704 - escaped there


def _by(runs: list[PastRun], key: Any) -> dict[Any, list[PastRun]]:
    found: dict[Any, list[PastRun]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _counts(runs: list[PastRun]) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in runs:
        found[run.outcome] = found.get(run.outcome, 0) + 1
    return dict(sorted(found.items()))


def _when(time: datetime | None) -> str:
    """In UTC, as a page is read in any zone."""
    return f"{time:%Y-%m-%d %H:%M}" if time is not None else ""


def _stamp(time: datetime) -> str:
    """The night's, as its page is called."""
    return f"{time:%Y-%m-%d}"
