# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run A B``: scenarios of the command line as a suite without a name; and a single one."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from harness.events import EventStream
from harness.hosts.signals import polite_signals
from harness.nested.commands import NestedRun, demand_nestable, run_scenarios_nested
from harness.plan.by_hand import NOT_BY_HAND, ByHand
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.report.finished import FinishedRun, RunSink, Sinks, SuiteReport
from harness.report.gravity import INTERRUPTED
from harness.run.several import run_folders
from harness.scenario.load import Override
from harness.suite.build import build_all_for
from harness.suite.command import SuiteFacts, describe_machine, exit_status_of, make_runs
from harness.suite.engine import Engine, ThisMachine
from harness.suite.expand import SuiteRun
from harness.suite.needs import needs_of
from harness.suite.runner import RunPlace, finished_run
from harness.suite.show import TerminalSink
from harness.terminal import TerminalProgress

#: Nobody has said how long a run of the command line may take.
_NO_LIMIT: Final = float("inf")


@dataclass(frozen=True, slots=True)
class NamedRuns:
    """Scenarios as the command line names them; ``changes`` and ``tools`` are the same for all."""

    names: Sequence[str]
    changes: Sequence[str | Override]
    tools: Tools
    nested: bool = False
    #: Where a person wants a single run to stand still.
    hand: ByHand = NOT_BY_HAND

    def runs(self) -> list[SuiteRun]:
        """One run for each name.  Raises :class:`harness.errors.InputError` for what is wrong with any."""
        found: list[SuiteRun] = []
        counts: dict[str, int] = {}
        for name in self.names:
            scenario, tools = load_with_tools(name, self.changes, self.tools)
            if self.nested:
                demand_nestable(scenario)
            number = counts[scenario.name] = counts.get(scenario.name, 0) + 1
            found.append(
                SuiteRun(
                    scenario.name if number == 1 else f"{scenario.name}#{number}",
                    scenario,
                    tools,
                    needs_of(scenario, nested=self.nested),
                    self.nested,
                    repeat=number,
                    timeout=_NO_LIMIT,
                )
            )
        return found

    def command(self) -> str:
        """The command, as far as it can be told: what changes a scenario is in each run's replay."""
        words = ["freepage", "run", *self.names, *self.tools.options()]
        return shlex.join([*words, "--nested"] if self.nested else words)


def run_named(
    named: NamedRuns,
    *,
    out: Path | None,
    jobs: int | None,
    sinks: Sequence[RunSink] = (),
    engine: Engine | None = None,
) -> SuiteReport:
    """Run scenarios of the command line; the report of all.

    ``out``: the folder of their run folders.  ``jobs``: the most at a time.  In a nested machine they
    share one, and run one after the other.
    """
    runs = named.runs()
    folders = dict(zip(runs, run_folders([run.scenario for run in runs], out), strict=True))
    with tempfile.TemporaryDirectory(prefix="freepage-") as aside:

        def place(run: SuiteRun) -> RunPlace:
            stem = f"{runs.index(run) + 1:03d}"
            return RunPlace(folders[run], Path(aside, f"{stem}.yaml"), Path(aside, f"{stem}.log"))

        if named.nested and engine is None:
            return _nested(named, runs, folders, Sinks(sinks))
        events = EventStream()
        with polite_signals(), TerminalProgress(events):
            engine = engine or ThisMachine()
            before = time.time()
            parent = next(iter(folders.values())).parent
            prepared = build_all_for(runs, events, parent, elsewhere=engine.elsewhere)
            engine.hand_out(before, events)
            facts = SuiteFacts("", named.command())
            sink = Sinks([TerminalSink(events), *sinks])
            return make_runs(prepared, place, sink, facts, engine, jobs=jobs)


def _nested(
    named: NamedRuns, runs: Sequence[SuiteRun], folders: dict[SuiteRun, Path], sink: RunSink
) -> SuiteReport:
    """All in one nested machine, which runs one after the other."""
    told: list[FinishedRun] = []
    began = before = datetime.now(UTC)
    started = last = time.monotonic()
    sink.begin("", len(runs))

    def finished(nested: NestedRun, status: int, why: str) -> None:
        nonlocal before, last
        run = next(run for run in runs if folders[run] == nested.folder)
        place = RunPlace(nested.folder, nested.folder / "scenario.yaml", nested.folder / "nested.log")
        stopped = "interrupted" if status == INTERRUPTED else why
        now = time.monotonic()
        told.append(finished_run(run, place, status, stopped, before, now - last))
        before, last = datetime.now(UTC), now
        sink.finished(told[-1])

    status = run_scenarios_nested(
        [NestedRun(run.scenario, run.tools, folders[run]) for run in runs], finished=finished
    )
    ended = {run.name for run in told}
    report = SuiteReport(
        suite="",
        command=named.command(),
        began=began,
        seconds=round(time.monotonic() - started, 3),
        exit_status=status if status == INTERRUPTED else exit_status_of(told),
        interrupted=status == INTERRUPTED,
        host=describe_machine(),
        runs=told,
        not_run=[run.name for run in runs if run.name not in ended],
    )
    sink.ended(report)
    return report


def run_single(named: NamedRuns, *, out: Path | None, as_json: bool, sinks: Sequence[RunSink] = ()) -> int:
    """Run one scenario in this process, as ever; the sinks are told of it in the end."""
    from harness.run.supervise import run_scenario

    (name,) = named.names
    if not sinks:
        if named.nested:
            return _single_nested(named, out, as_json=as_json)
        return run_scenario(name, named.changes, named.tools, out=out, as_json=as_json, hand=named.hand)
    (run,) = named.runs()
    (folder,) = run_folders([run.scenario], out)
    began, started = datetime.now(UTC), time.monotonic()
    if named.nested:
        status = _single_nested(named, folder, as_json=as_json)
    else:
        status = run_scenario(name, named.changes, named.tools, out=folder, as_json=as_json, hand=named.hand)
    seconds = time.monotonic() - started
    place = RunPlace(folder, folder / "scenario.yaml", folder / "INCOMPLETE")
    sink = Sinks(sinks)
    sink.begin("", 1)
    ended = finished_run(run, place, status, "interrupted" if status == INTERRUPTED else "", began, seconds)
    sink.finished(ended)
    sink.ended(
        SuiteReport(
            suite="",
            command=named.command(),
            began=began,
            seconds=round(seconds, 3),
            exit_status=status,
            interrupted=status == INTERRUPTED,
            host=describe_machine(),
            runs=[ended],
        )
    )
    return status


def _single_nested(named: NamedRuns, out: Path | None, *, as_json: bool) -> int:
    (run,) = named.runs()
    (folder,) = run_folders([run.scenario], out)
    return run_scenarios_nested([NestedRun(run.scenario, run.tools, folder)], as_json=as_json)
