# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bench``: from the request to documents and an exit status."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import accel
from harness.bench.document import BenchDocument, Overhead
from harness.bench.folder import BenchFolder
from harness.bench.host import describe_host
from harness.bench.markdown import to_markdown
from harness.bench.overhead import measure_overhead
from harness.bench.page import to_html
from harness.bench.plan import PlannedRun, Point, make_plan, make_points
from harness.bench.runner import BenchRequest, read_all, read_result, run_all
from harness.bench.summarise import BenchSetting, CountedRun, summarise_bench
from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.units import format_size

if TYPE_CHECKING:
    from harness.scenario.load import Scenario

#: Options of a bench that runs in a machine around it (:mod:`harness.nested.bench`).
INSIDE: Final = ("--accel", "kvm")
#: Above this load a processor, a bench says that its machine had other things to do.
BUSY: Final = 1.2


@dataclass(frozen=True, slots=True)
class BenchOrder:
    """What is to be measured.  ``memories``: bytes, or None for each scenario's own."""

    scenarios: tuple[str, ...]
    arms: tuple[str, ...]
    memories: tuple[int | None, ...]
    repeat: int
    seed: int
    request: BenchRequest
    #: Pairs of a whole run and a bare one, which tell what the testbed itself costs.
    overhead: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The request for ``plan.json``: a bench is continued only by an equal request."""
        return {
            "scenarios": list(self.scenarios),
            "arms": list(self.arms),
            "memories": [None if memory is None else format_size(memory) for memory in self.memories],
            "repeat": self.repeat,
            "seed": self.seed,
            "strict": self.request.strict,
            "window_s": self.request.window_s,
            "options": list(self.request.options),
        }

    def with_options(self, options: tuple[str, ...]) -> BenchOrder:
        """This bench, with more options for each run."""
        return replace(self, request=replace(self.request, options=(*self.request.options, *options)))

    def command(self) -> str:
        """The command that repeats this bench, on the machine where it was given."""
        _, _, *words = self.words()
        if accel.chain() is not None and tuple(words[-len(INSIDE) :]) == INSIDE:
            words[-len(INSIDE) :] = ["--nested"]
        return shlex.join(["freepage", "bench", *words])

    def words(self) -> list[str]:
        """The arguments of ``freepage`` for this bench."""
        memories = [format_size(memory) for memory in self.memories if memory is not None]
        words = ["bench", "run", *self.scenarios, "--arms", ",".join(self.arms)]
        words += ["--memory", ",".join(memories)] if memories else []
        words += ["--repeat", str(self.repeat), "--seed", str(self.seed)]
        words += ["--window", f"{self.request.window_s:g}"] if self.request.window_s != 2.0 else []
        words += ["--overhead", str(self.overhead)] if self.overhead else []
        words += ["--strict"] if self.request.strict else []
        return [*words, *self.request.options]

    def plan(self) -> list[PlannedRun]:
        """Every run, in order."""
        points = make_points(self.scenarios, self.memories, self.arms)
        return make_plan(points, self.repeat, self.seed)


def check_points(wanted: BenchOrder) -> None:
    """Refuse what no run could do before the first one is made."""
    from harness.hosts.this_machine import memory_available
    from harness.scenario.resolve import MachineFacts, resolve
    from harness.verdict.expected_rule import demand_known_rule

    facts = MachineFacts(memory_available(), kvm_usable=True)
    for scenario in scenarios_of(wanted):
        demand_known_rule(scenario)
        if scenario.guests > 1:
            raise scenario.wrong("guests", "a bench measures one guest, and no other beside it")
        resolve(scenario, facts)


def scenarios_of(wanted: BenchOrder) -> list[Scenario]:
    """The scenario of each point, as its runs will have it."""
    from harness.scenario.load import load_scenario

    points = make_points(wanted.scenarios, wanted.memories, wanted.arms)
    return [load_scenario(point.scenario, _changes(wanted, point)) for point in points]


def _changes(wanted: BenchOrder, point: Point) -> list[str]:
    changes = [f"arm={point.arm}", *wanted.request.settings(point)]
    if point.memory is not None:
        changes.append(f"guest.memory={format_size(point.memory)}")
    options = wanted.request.options
    changes += [options[i + 1] for i, word in enumerate(options[:-1]) if word == "--set"]
    return changes


def run_bench(wanted: BenchOrder, out: Path | None, events: EventStream) -> tuple[BenchFolder, BenchDocument]:
    """Make the runs that are missing, and the documents out of all of them."""
    check_points(wanted)
    folder = BenchFolder.open(out, wanted.as_dict())
    before = describe_host()
    try:
        run_all(wanted.plan(), wanted.request, folder, events)
    except KeyboardInterrupt:
        # What there is is shown as what it is; the same command goes on from here.
        if folder.outcomes():
            write_documents(wanted, folder, before)
        raise
    overhead = measure_overhead(("info",), wanted.overhead, folder, events)
    return folder, write_documents(wanted, folder, before, overhead)


def write_documents(
    wanted: BenchOrder, folder: BenchFolder, host: dict[str, Any], overhead: Sequence[Overhead] = ()
) -> BenchDocument:
    """``bench.json``, ``report.html`` and ``table.md`` from what lies in the folder."""
    plan = wanted.plan()
    made = read_all(plan, folder)
    if not made:
        raise InputError(f"no run of {folder.path} has ended: there is nothing to show")
    versions = next((found.versions for run in plan if (found := read_result(run, folder))), {})
    setting = BenchSetting(
        started=str(folder.request.get("started", "")),
        command=wanted.command(),
        seed=wanted.seed,
        strict=wanted.request.strict,
        host=host,
        versions=versions,
        scenarios=wanted.scenarios,
        overhead=overhead,
        notes=[
            *([f"Not finished: {len(made)} of {len(plan)} runs."] if len(made) < len(plan) else []),
            *_notes(wanted, made),
        ],
    )
    document = summarise_bench(setting, made)
    folder.write("bench.json", document.to_json())
    folder.write("table.md", to_markdown(document))
    folder.write("report.html", to_html(document, folder.path))
    return document


def _notes(wanted: BenchOrder, made: Sequence[CountedRun]) -> list[str]:
    notes = []
    accelerators = {one.accelerator for one in made}
    loads = sorted(one.run.load for one in made if one.run.load is not None)
    processors = len(os.sched_getaffinity(0))
    if loads and loads[len(loads) // 2] > processors * BUSY:
        notes.append(
            f"The machine was busy with other things: runs began at a load average of "
            f"{loads[0]:.0f} to {loads[-1]:.0f} on {processors} CPUs. Bytes are what they are; times are "
            f"several times what a quiet machine takes, and vary as much."
        )
    if not wanted.request.strict:
        notes.append(
            "Guests were not held for digests: that a skipped page did not change rests on the device's "
            "dirty log (see docs/oracle.md)."
        )
    if "tcg" in accelerators:
        notes.append(
            "Guests were emulated (TCG): times say how arms compare, not how long they take under KVM."
        )
    if wanted.repeat < 5:
        notes.append(
            f"{wanted.repeat} repeats: no test can reach p = 0.01, and intervals are the whole range."
        )
    return notes


def exit_code(document: BenchDocument) -> ExitCode:
    """The gravest of all runs': wrong memory before a failed machine before nothing exercised."""
    verdicts = {run.verdict for point in document.points for run in point.runs}
    for verdict, code in (
        ("fail", ExitCode.FAIL),
        ("error", ExitCode.ERROR),
        ("inconclusive", ExitCode.INCONCLUSIVE),
    ):
        if verdict in verdicts:
            return code
    return ExitCode.PASS
