# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage suite run``: from the order to the report and the exit status."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.hosts.signals import polite_signals
from harness.report.finished import FinishedRun, LastWords, RunSink, Sinks, SuiteReport
from harness.report.gravity import INTERRUPTED, worst
from harness.suite.build import Prepared, build_all_for
from harness.suite.engine import Engine, RunsWanted, ThisMachine
from harness.suite.expand import Expansion, GivenQemu, SuiteRun, further_rounds, repeated, shard_of
from harness.suite.folder import SuiteFolder, SuitePlan, last_folder, read_plan, right_in
from harness.suite.load import load_suite
from harness.suite.needs import machine_resources
from harness.suite.runner import RunPlace, fails, is_wrong, never, unmade_run
from harness.suite.show import TerminalSink
from harness.terminal import TerminalProgress
from harness.toolchain import Toolchain
from harness.toolchain.qemu_names import canonical
from harness.units import format_size


@dataclass(frozen=True, slots=True)
class SuiteOrder:
    """What is asked of a suite.

    ``jobs``: the most runs at a time; None: as many as fit.  ``repeat``: in place of what the file says.
    ``shard``: (I, N).  ``timeout``: seconds, in place of what the file says.  ``last``: the folder whose
    failed runs are made again; None with ``rerun_failed``: the newest one of the suite.  ``qemu``: for all
    runs that name none.  ``warm``: whether guests go on from a file where they may; None: as the file says.
    """

    suite: str
    jobs: int | None = None
    repeat: int | None = None
    until_failure: bool = False
    shard: tuple[int, int] | None = None
    rerun_failed: bool = False
    last: Path | None = None
    stop_at_first: bool = False
    timeout: float | None = None
    seed: int | None = None
    out: Path | None = None
    qemu: str | None = None
    warm: bool | None = None


def parse_shard(text: str) -> tuple[int, int]:
    """``2/5``.  Raises :class:`InputError` for anything else."""
    number, slash, of = text.partition("/")
    if not (slash and number.isascii() and number.isdecimal() and of.isascii() and of.isdecimal()):
        raise InputError(f"--shard {text}: expected I/N, such as 1/4")
    if not 1 <= int(number) <= int(of):
        raise InputError(f"--shard {text}: expected a part from 1 to {of}")
    return int(number), int(of)


def run_suite(order: SuiteOrder, sinks: Sequence[RunSink] = (), engine: Engine | None = None) -> SuiteReport:
    """Expand, build, run, and report to the sinks, beside the terminal and the suite's folder.

    ``engine``: where; None is this machine.
    Raises :class:`InputError` for all that is wrong with the suite, before anything is built or run.
    """
    loaded = load_suite(order.suite)
    expansion = Expansion(loaded, _given_qemu(order.qemu))
    expanded = expansion.runs()
    if not expanded:
        raise InputError(f"the suite {loaded.suite.name} has no run for {order.qemu}")
    last = _last(order, loaded.suite.name)
    seed = order.seed if order.seed is not None else read_plan(last).seed if last else _new_seed()
    runs = repeated(expanded, seed, order.repeat)
    if last is not None:
        wanted = set(read_plan(last).runs) - right_in(last)
        runs = [run for run in runs if run.name in wanted]
        if not runs:
            raise InputError(f"nothing has failed in {last}", hint="leave out --rerun-failed to run all")
    if order.shard is not None:
        runs = shard_of(runs, *order.shard)
        if not runs:
            raise InputError(f"the suite {loaded.suite.name} has fewer runs than shards: this one is empty")
    if order.timeout is not None:
        runs = [_with_timeout(run, order.timeout) for run in runs]
    if loaded.suite.warm if order.warm is None else order.warm:
        runs = [run if run.nested else replace(run, tools=replace(run.tools, warm=True)) for run in runs]
    events = EventStream()
    with polite_signals(), TerminalProgress(events):
        if expansion.left_out:
            names = ", ".join(expansion.left_out)
            events.emit("message", text=f"{names}: they need free page info, which {order.qemu} has not")
        parent = (order.out or Path("runs", "suite")).absolute().parent
        engine = engine or ThisMachine()
        before = time.time()
        prepared = build_all_for(runs, events, parent, elsewhere=engine.elsewhere)
        if not prepared.runs and not prepared.failed:
            reasons = "\n".join(dict.fromkeys(prepared.skipped.values()))
            raise InputError(f"no run of the suite {loaded.suite.name} can be made here:\n{reasons}")
        folder = SuiteFolder.create(loaded.suite.name, loaded.text, order.out)
        folder.write_plan(SuitePlan(suite=loaded.suite.name, seed=seed, runs=[run.name for run in runs]))
        sink = Sinks([TerminalSink(events), folder, *sinks])
        facts = SuiteFacts(
            loaded.suite.name, suite_command(order, seed), seed, "/".join(map(str, order.shard or ()))
        )
        more = further_rounds(prepared.runs, seed) if order.until_failure and prepared.runs else None
        stops = fails if order.until_failure else is_wrong if order.stop_at_first else never
        engine.hand_out(before, events)
        return make_runs(prepared, folder.place, sink, facts, engine, jobs=order.jobs, stops=stops, more=more)


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What a report says of a suite beside its runs."""

    suite: str
    command: str
    seed: int | None = None
    shard: str = ""


def make_runs(
    prepared: Prepared,
    places: Callable[[SuiteRun], RunPlace],
    sink: RunSink,
    facts: SuiteFacts,
    engine: Engine,
    *,
    jobs: int | None,
    stops: Callable[[FinishedRun], bool] = never,
    more: Iterator[Sequence[SuiteRun]] | None = None,
) -> SuiteReport:
    """Make runs for which all is built, and tell the sinks; the report of all.

    ``engine``: where.  ``stops``, ``more``: see :class:`harness.suite.runner.SuiteRunner`.
    """
    runner = engine.runner(RunsWanted(prepared.runs, places, sink, jobs, stops))
    began, started = datetime.now(UTC), time.monotonic()
    total = sum(map(len, (prepared.runs, prepared.skipped, prepared.failed)))
    sink.begin(facts.suite, total if more is None else 0)
    unmade = [unmade_run(run, "skipped", why) for run, why in prepared.skipped.items()]
    unmade += [unmade_run(run, "error", why) for run, why in prepared.failed.items()]
    for run in unmade:
        sink.finished(run)

    def report(failed: bool) -> SuiteReport:
        done = [*unmade, *runner.done]
        status = ExitCode.ERROR if failed else exit_status_of(done)
        return SuiteReport(
            suite=facts.suite,
            command=facts.command,
            seed=facts.seed,
            shard=facts.shard or None,
            began=began,
            seconds=round(time.monotonic() - started, 3),
            exit_status=INTERRUPTED if runner.interrupted else status,
            interrupted=runner.interrupted,
            host=describe_machine(),
            runs=done,
            not_run=[run.name for run in runner.waiting],
        )

    try:
        runner.run(more)
    except BaseException:
        # What has run has run, though somebody could not be told of it.
        LastWords(sink).ended(report(failed=True))
        raise
    whole = report(failed=False)
    sink.ended(whole)
    return whole


def exit_status_of(runs: Sequence[FinishedRun]) -> int:
    """The gravest of several runs' exit statuses."""
    return worst(run.exit_status for run in runs)


def describe_machine() -> dict[str, str]:
    """What the runs are made on: no name, which would say whose it is."""
    machine = machine_resources()
    return {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cpus": str(machine.cpus),
        "memory_available": format_size(machine.memory >> 20 << 20),
        "python": platform.python_version(),
    }


def suite_command(order: SuiteOrder, seed: int) -> str:
    """The command that makes the same runs again, with the same seeds."""
    words = ["freepage", "suite", "run", order.suite, "--seed", str(seed)]
    words += ["--jobs", str(order.jobs)] if order.jobs is not None else []
    words += ["--repeat", str(order.repeat)] if order.repeat is not None else []
    words += ["--until-failure"] if order.until_failure else []
    words += ["--shard", "/".join(map(str, order.shard))] if order.shard is not None else []
    words += ["--timeout", f"{order.timeout:g}"] if order.timeout is not None else []
    words += ["--qemu", order.qemu] if order.qemu is not None else []
    words += [] if order.warm is None else ["--warm" if order.warm else "--cold"]
    return shlex.join(words)


def _given_qemu(name: str | None) -> GivenQemu | None:
    if name is None:
        return None
    known = canonical(name)
    qemu = Toolchain().named_qemu(known)
    return GivenQemu(known, plain=not (qemu.has_free_page_info and qemu.has_record and qemu.has_hold))


def _with_timeout(run: SuiteRun, timeout: float) -> SuiteRun:
    return replace(run, timeout=timeout)


def _last(order: SuiteOrder, suite: str) -> Path | None:
    if not order.rerun_failed:
        return None
    return order.last if order.last is not None else last_folder(suite)


def _new_seed() -> int:
    return int.from_bytes(os.urandom(8), "big") >> 1
