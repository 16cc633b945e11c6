# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage history``: the results of many nights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import HistoryName, Json, app, print_json
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.history.ask import Selection
    from harness.history.store import Store

history = typer.Typer(help="The results of many nights: what fails since when, and what has moved.")
app.add_typer(history, name="history")

ScenarioName = Annotated[
    str | None, typer.Option("--scenario", metavar="NAME", help="Only of this scenario.")
]
QemuVersion = Annotated[
    str | None,
    typer.Option("--qemu", metavar="WORDS", help="Only of QEMUs with these words in their version."),
]
RuleName = Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only runs that failed by it.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="A date (2026-01-31), or days back (14d).")
]
BatchKindName = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only of suite, faults, bench or hunt.")
]


def since_time(words: str | None, now: datetime) -> datetime | None:
    """``14d`` or ``2026-01-31``, in the user's zone.  Raises :class:`InputError` for anything else."""
    if words is None:
        return None
    if (days := re.fullmatch(r"([0-9]{1,5})d", words)) is not None:
        return now - timedelta(days=int(days[1]))
    try:
        return datetime.fromisoformat(words).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"--since {words}: expected a date such as 2026-01-31, or days such as 14d"
        ) from None


def _selection(
    scenario: str | None, qemu: str | None, rule: str | None, since: str | None, kind: str | None
) -> Selection:
    from harness.history.ask import Selection

    if kind not in (None, "suite", "faults", "bench", "hunt"):
        raise InputError(f"--kind {kind}: expected suite, faults, bench or hunt")
    return Selection(scenario, qemu, rule, kind, since_time(since, datetime.now(UTC)))


@contextmanager
def _opened(name: str | None, *, makes: bool = False) -> Iterator[Store]:
    from harness.history.store import VARIABLE, has_store, open_store, shown, store_url

    url = store_url(name)
    if url is None:
        raise InputError(f"no store: {VARIABLE} is off", hint="name one with --history")
    if not makes and not has_store(url):
        raise InputError(
            f"there is no store of results at {shown(url)} yet",
            hint="'freepage suite run' makes it; 'freepage history import DIR...' reads what was run before",
        )
    with open_store(url) as store:
        yield store


@history.callback(invoke_without_command=True)
def history_state(
    ctx: typer.Context,
    scenario: ScenarioName = None,
    qemu: QemuVersion = None,
    rule: RuleName = None,
    since: Since = None,
    kind: BatchKindName = None,
    store: HistoryName = None,
    json: Json = False,
) -> None:
    """Without a command: what fails since when, by which rule, on which QEMU, and how often."""
    if ctx.invoked_subcommand is not None:
        return
    from harness.history.ask import current
    from harness.history.show import state_document, state_lines

    with _opened(store) as opened:
        found = current(opened, _selection(scenario, qemu, rule, since, kind))
    if json:
        print_json(state_document(found))
    else:
        typer.echo("\n".join(state_lines(found)) if found else "no run is kept that was asked for")


@history.command("runs")
def history_runs(
    scenario: ScenarioName = None,
    qemu: QemuVersion = None,
    rule: RuleName = None,
    since: Since = None,
    kind: BatchKindName = None,
    most: Annotated[int, typer.Option("--most", min=1, metavar="N", help="Only the newest N.")] = 50,
    store: HistoryName = None,
    json: Json = False,
) -> None:
    """List single runs, the newest last."""
    from harness.history.ask import past_runs
    from harness.history.show import documents, run_lines

    with _opened(store) as opened, opened.reading() as connection:
        found = past_runs(connection, _selection(scenario, qemu, rule, since, kind), most)
    if json:
        print_json(documents(found))
    else:
        typer.echo("\n".join(run_lines(found)))


@history.command("nights")
def history_nights(since: Since = None, store: HistoryName = None, json: Json = False) -> None:
    """List suites, campaigns, benches and hunts, the newest first."""
    from harness.history.ask import past_batches
    from harness.history.show import batch_lines, documents

    with _opened(store) as opened, opened.reading() as connection:
        found = past_batches(connection, since_time(since, datetime.now(UTC)))
    if json:
        print_json(documents(found))
    else:
        typer.echo("\n".join(batch_lines(found)))


@history.command("moved")
def history_moved(
    measure: Annotated[
        list[str] | None, typer.Option("--measure", metavar="NAME", help="As in docs/bench.md; repeatable.")
    ] = None,
    scenario: ScenarioName = None,
    qemu: QemuVersion = None,
    since: Since = None,
    store: HistoryName = None,
    json: Json = False,
) -> None:
    """Say which measures have moved beyond noise, when, and with which build of QEMU."""
    from harness.bench.measures import BY_NAME
    from harness.history.show import measure_document, measure_lines
    from harness.history.trend import WATCHED, measure_rows
    from harness.scenario.problems import did_you_mean

    for name in measure or ():
        if name not in BY_NAME:
            near = did_you_mean(name, tuple(BY_NAME))
            raise InputError(f"--measure {name}: no such measure; {near}there are {', '.join(BY_NAME)}")
    with _opened(store) as opened, opened.reading() as connection:
        chosen = _selection(scenario, qemu, None, since, None)
        rows = list(measure_rows(connection, chosen, measure or WATCHED))
    if json:
        print_json(measure_document(rows))
    else:
        typer.echo("\n".join(measure_lines(rows)))


@history.command("site")
def history_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or a site made before.")],
    since: Since = None,
    store: HistoryName = None,
) -> None:
    """Write static pages: one for all, one a scenario, one a QEMU, one a night."""
    from harness.history.site import write_site

    with _opened(store) as opened:
        count = write_site(opened, folder, _selection(None, None, None, since, None))
    typer.echo(f"{count} pages: {folder / 'index.html'}")


@history.command("import")
def history_import(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of suites, benches or single runs.")
    ],
    store: HistoryName = None,
) -> None:
    """Keep what lies in folders; what is kept already is not kept twice.

    So the shards of a suite that several machines have run come together.
    """
    from harness.history.read_folders import read_folder
    from harness.history.record import record_batch

    found = [(folder, read_folder(folder)) for folder in folders]
    with _opened(store, makes=True) as opened:
        for folder, one in found:
            new, known = record_batch(opened, one.batch, one.runs)
            typer.echo(f"{folder}: {new} runs, {known} kept before")
