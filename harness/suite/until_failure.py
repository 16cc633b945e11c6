# SPDX-License-Identifier: GPL-2.0-or-later
"""``--until-failure``: the same runs again and again, until one is not as it should be.

One machinery for ``freepage run`` and for a suite: :func:`further_rounds` gives a :class:`SuiteRunner` the
next runs whenever it has none left, and :func:`fails` says which of them is the last.  An inconclusive run
says nothing, and the next one begins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.hosts.signals import polite_signals
from harness.report.finished import FinishedRun
from harness.report.folder import RunFolder, demand_new
from harness.report.gravity import INTERRUPTED
from harness.run.odds import CONFIDENCE, most_rate
from harness.suite.build import build_all_for
from harness.suite.command import SuiteFacts, make_runs
from harness.suite.engine import ThisMachine
from harness.suite.expand import SuiteRun, further_rounds
from harness.suite.runner import RunPlace, fails
from harness.suite.several import NamedRuns
from harness.suite.show import TerminalSink
from harness.terminal import TerminalProgress

_DOCUMENT: Final = "until-failure.json"


@dataclass(frozen=True, slots=True)
class Repeated:
    """Runs of one scenario, in the order in which they ended."""

    scenario: str
    most: int
    runs: tuple[FinishedRun, ...]
    interrupted: bool = False

    @property
    def failed(self) -> FinishedRun | None:
        """The first that failed."""
        return next(filter(fails, self.runs), None)

    @property
    def passed(self) -> int:
        """Runs that reached a verdict on what was tried, and the right one."""
        return sum(run.right for run in self.runs)

    @property
    def unclear(self) -> int:
        """Runs that say nothing."""
        return sum(not run.right and not fails(run) for run in self.runs)

    @property
    def exit_status(self) -> int:
        """That of the run that failed; 0 for none that failed."""
        if self.interrupted:
            return INTERRUPTED
        if self.failed is not None:
            return self.failed.exit_status
        return ExitCode.PASS if self.passed else ExitCode.INCONCLUSIVE

    def lines(self) -> list[str]:
        """What came of it, and how much that tells."""
        failed, aside = self.failed, f", {self.unclear} inconclusive" if self.unclear else ""
        if failed is not None:
            number = f"run {failed.repeat} of at most {self.most}"
            lines = [f"{number}: {failed.outcome}: {failed.reason}"]
            lines += [f"seed        {failed.seed}"] if failed.seed is not None else []
            lines += [f"run folder  {failed.folder}"] if failed.folder is not None else []
            return [*lines, f"before it   {self.passed} passed{aside}"]
        bound = f"{100 * most_rate(0, self.passed):.2g} %"
        lines = [f"none of {self.passed} runs failed{aside}"]
        if self.passed:
            lines.append(
                f"a run fails in fewer than {bound} of cases, with {100 * CONFIDENCE:.0f} % confidence "
                f"(1 - {1 - CONFIDENCE:.2g}^(1/{self.passed}))"
            )
        return lines

    def document(self) -> str:
        """The same as JSON."""
        rows = [
            {
                "outcome": run.outcome,
                "exit_status": run.exit_status,
                "reason": run.reason,
                "rules": [] if run.result is None else [found.rule for found in run.result.findings],
                "seed": run.seed,
                "folder": run.folder,
            }
            for run in self.runs
        ]
        whole = {
            "version": 1,
            "scenario": self.scenario,
            "most": self.most,
            "exit_status": self.exit_status,
            "runs": rows,
            "rate_below": most_rate(0, self.passed) if self.exit_status == ExitCode.PASS else None,
        }
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def run_until_failure(
    named: NamedRuns, most: int, *, jobs: int | None, out: Path | None, as_json: bool
) -> int:
    """Run one scenario until a run fails, ``most`` times at most; returns the exit status.

    Each run draws a seed of its own, unless the scenario has one.  ``out`` is the folder of the run folders.
    """
    (first,) = named.runs()
    demand_new(out)
    stem = RunFolder.stem(first.scenario.name, first.scenario.arm)
    folder = (out or Path("runs", f"{stem}-until-failure")).absolute()
    events = EventStream()
    with polite_signals(), TerminalProgress(events):
        prepared = build_all_for([first], events, folder.parent)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {folder}: {error.strerror}", hint="give --out DIR"
            ) from error
        width = len(str(most))

        def place(run: SuiteRun) -> RunPlace:
            stem = folder / f"run-{run.repeat:0{width}d}"
            return RunPlace(stem, stem.with_suffix(".yaml"), stem.with_suffix(".log"))

        report = make_runs(
            prepared,
            place,
            TerminalSink(events),
            SuiteFacts("", named.command()),
            ThisMachine(),
            jobs=jobs or 1,
            stops=fails,
            more=further_rounds(prepared.runs, None, most=most),
        )
    repeated = Repeated(first.scenario.name, most, tuple(report.runs), report.interrupted)
    (folder / _DOCUMENT).write_text(repeated.document(), encoding="utf-8")
    text = repeated.document() if as_json else "\n".join(repeated.lines()) + "\n"
    print(text, end="", flush=True)  # noqa: T201 - this is the command's output
    return repeated.exit_status
