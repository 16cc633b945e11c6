# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the runs of a plan: one ``freepage run`` each, one after the other.

A command of its own for each run, and not a call: every run then begins with the
same process, lab and daemons, and what one leaves behind in memory cannot favour
the next.  It is also exactly what the user can repeat by hand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.bench.document import BenchRun
from harness.bench.folder import BenchFolder, BenchRunEnd
from harness.bench.measures import values_of
from harness.bench.plan import PlannedRun, Point
from harness.bench.summarise import CountedRun
from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.invoke import invoke
from harness.report.result import Result
from harness.units import format_size

_LAST_LINES: Final = 8
#: A scenario's expectations of numbers that a bench measures.
_AMOUNTS: Final = ("skipped_percent_min", "skipped_percent_max", "sent_over_floor_max")
_INTERRUPTED: Final = 130
_INPUT: Final = 2


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What every run of a bench has in common.  ``options`` are passed on to ``freepage run`` as they are."""

    options: tuple[str, ...] = ()
    strict: bool = False
    window_s: float = 2.0

    def settings(self, point: Point) -> list[str]:
        """What is changed of a point's scenario, as ``key=value``."""
        settings = [
            f"measure.before_s={self.window_s:g}",
            f"measure.after_s={self.window_s:g}",
            # How much an arm leaves out is what is to be measured: who left out the runs in which
            # it was little would make the rest look better than it is.
            *(f"expect.{name}=null" for name in _AMOUNTS),
            # It has its share of the wire and of the processors.
            "tap=false",
        ]
        if point.arm == "hint":
            # That the peer saves nothing is what is to be measured, and no reason to leave it out.
            settings.append("expect.skipping=false")
        return settings

    def words(self, run: PlannedRun, out: Path) -> list[str]:
        """The arguments of ``freepage`` for one run."""
        point = run.point
        memory = [] if point.memory is None else ["--memory", format_size(point.memory)]
        settings = [word for setting in self.settings(point) for word in ("--set", setting)]
        return [
            *("run", point.scenario, "--arm", point.arm, *memory, "--seed", str(run.seed)),
            *("--strict" if self.strict else "--no-strict", "--json", "--out", str(out)),
            *settings,
            *self.options,
        ]


def run_all(
    plan: Sequence[PlannedRun], request: BenchRequest, folder: BenchFolder, events: EventStream
) -> None:
    """Make every run that has not been made yet.

    A run without a verdict is put down as such, and the next one is made.  Raises
    :class:`InputError` where a run says that its input is wrong: the others' would be too.
    """
    done = folder.outcomes()
    for run in plan:
        if run.number in done:
            continue
        with events.step("run", number=f"{run.number}/{len(plan)}", point=run.point.label) as step:
            outcome = _make(run, request, folder)
            folder.add(outcome)
            made = read_run(run, folder, outcome)
            step.note(verdict=made.run.verdict, **_briefly(made.run))


def _make(run: PlannedRun, request: BenchRequest, folder: BenchFolder) -> BenchRunEnd:
    out = folder.make_room(run)
    began, load = time.monotonic(), round(os.getloadavg()[0], 2)
    # What it says while it runs is in its folder; here only the end matters.
    done = invoke(request.words(run, out))
    seconds = time.monotonic() - began
    said = _last_words(done.stderr)
    if done.exit_code == _INTERRUPTED:
        raise KeyboardInterrupt
    if done.exit_code == _INPUT:
        raise InputError(f"{run.point.label}: {said}")
    if done.exit_code < 0:
        raise MachineryError(f"run {run.number} was killed by signal {-done.exit_code}")
    has_result = (out / "result.json").exists()
    return BenchRunEnd(run.number, done.exit_code, "" if has_result else said, seconds, load)


def _last_words(text: str) -> str:
    lines = text.strip().splitlines()
    start = next(
        (i for i, line in enumerate(lines) if line.startswith("freepage: ")), len(lines) - _LAST_LINES
    )
    return "\n".join(lines[max(0, start) :][:_LAST_LINES]).removeprefix("freepage: ")


def _briefly(run: BenchRun) -> dict[str, str]:
    words = {}
    for name, form in (("total_ms", "{:.0f} ms"), ("sent_bytes", "{:.0f} B")):
        value = run.values.get(name)
        if value is not None:
            words[name] = form.format(value)
    return words


def read_result(run: PlannedRun, folder: BenchFolder) -> Result | None:
    """The result of a run; None where it reached none."""
    path = folder.run_folder(run) / "result.json"
    if not path.exists():
        return None
    return Result.from_json(path.read_text(encoding="utf-8"), str(path))


def read_run(run: PlannedRun, folder: BenchFolder, outcome: BenchRunEnd) -> CountedRun:
    """One run that was made, as the document has it.  Only a pass enters numbers."""
    result = read_result(run, folder)
    if result is None:
        verdict, reason, values = "error", outcome.error or "no result", dict[str, float | None]()
    else:
        verdict, reason, values = result.verdict, result.reason, values_of(result)
    return CountedRun(
        scenario=result.scenario if result is not None else run.point.scenario,
        arm=run.point.arm,
        memory=result.memory_bytes if result is not None else run.point.memory or 0,
        accelerator=result.accelerator if result is not None else "",
        run=BenchRun(
            number=run.number,
            repeat=run.repeat,
            seed=run.seed,
            verdict=verdict,
            reason=reason,
            counted=verdict == "pass",
            values=values,
            free_blocks=result.free_blocks if result is not None else None,
            load=outcome.load,
            folder=f"runs/{run.folder}",
            replay=result.replay if result is not None else "",
        ),
    )


def read_all(plan: Sequence[PlannedRun], folder: BenchFolder) -> list[CountedRun]:
    """Every run that was made.  A run without a result belongs to its point, too."""
    outcomes = folder.outcomes()
    made = {run: read_run(run, folder, outcomes[run.number]) for run in plan if run.number in outcomes}
    known = {run.point: one for run, one in made.items() if one.accelerator}
    return [
        replace(
            one,
            scenario=known[run.point].scenario,
            memory=known[run.point].memory,
            accelerator=known[run.point].accelerator,
        )
        if run.point in known
        else one
        for run, one in made.items()
    ]
