# SPDX-License-Identifier: GPL-2.0-or-later
"""What a suite says on a terminal: a line for each run while it lasts, one table in the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.events import EventStream
from harness.report.finished import FinishedRun, RunOutcome, RunSink, SuiteReport

#: In the order of how much they matter.
_ORDER: Final[Sequence[RunOutcome]] = (
    "fail",
    "error",
    "refused",
    "inconclusive",
    "pass",
    "expected",
    "skipped",
)
_WORDS: Final = {"expected": "as expected", "error": "without a verdict"}


class TerminalSink(RunSink):
    """Makes events of what it is told, for :class:`harness.terminal.TerminalProgress`."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._done = 0
        self._total = 0

    def begin(self, suite: str, total: int) -> None:
        """A line for the suite, which says how far it is."""
        self._total = total
        self._events.emit("step-start", step="runs", depth=0, **({"suite": suite} if suite else {}))

    def started(self, name: str, folder: Path) -> None:  # noqa: ARG002
        """A line for the run."""
        self._events.emit("step-start", step=name, depth=1)

    def finished(self, run: FinishedRun) -> None:
        """How it went."""
        self._done += 1
        if run.folder is not None or run.seconds:
            error = None if run.right else f"{run.outcome}: {run.reason.splitlines()[0]}"
            seconds = run.seconds
            self._events.emit(
                "step-stop", step=run.name, depth=1, seconds=seconds, error=error, outcome=run.outcome
            )
        total = self._total or None
        self._events.emit("progress", step="runs", done=self._done, total=total)

    def ended(self, report: SuiteReport) -> None:
        """The suite's line ends."""
        self._events.emit(
            "step-stop",
            step="runs",
            depth=0,
            seconds=report.seconds,
            error=None,
            exit_status=report.exit_status,
        )


def table_lines(report: SuiteReport) -> list[str]:
    """The runs of a suite as a table, what is wrong below it, and the sum of it all."""
    rows = [("outcome", "run", "seconds", "accel", "skipped", "sent", "rule"), *map(_row, report.runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for run in report.runs:
        if run.right and run.outcome != "skipped":
            continue
        # No line of somebody else's words begins a line of ours: a CI may take it for a command.
        first, *rest = run.reason.splitlines() or [""]
        lines += ["", f"{run.outcome}  {run.name}: {first}", *(f"  | {line}" for line in rest)]
        lines += [
            f"  {name}: {text}" for name, text in (("folder", run.folder), ("replay", run.replay)) if text
        ]
    if report.not_run:
        lines += ["", f"not run: {', '.join(report.not_run)}"]
    return [*lines, "", sum_line(report)]


def sum_line(report: SuiteReport) -> str:
    """``12 runs: 1 fail, 10 pass, 1 as expected; 312 s; exit status 1``."""
    counts = report.counts
    parts = [f"{counts[word]} {_WORDS.get(word, word)}" for word in _ORDER if counts[word]]
    parts += [f"{len(report.not_run)} not run"] if report.not_run else []
    seed = f"; seed {report.seed}" if report.seed is not None else ""
    interrupted = "interrupted; " if report.interrupted else ""
    return (
        f"{interrupted}{len(report.runs)} runs: {', '.join(parts) or 'none'}; {report.seconds:.0f} s{seed}; "
        f"exit status {report.exit_status}"
    )


def _row(run: FinishedRun) -> tuple[str, ...]:
    from harness.units import human_size

    skipped, sent = "", ""
    if run.result is not None and run.result.pages.total:
        skipped = f"{run.result.pages.skipped_percent:.1f} %"
    if run.result is not None and run.result.bytes is not None:
        sent = human_size(run.result.bytes.sent)
    seconds = f"{run.seconds:.1f}" if run.seconds else ""
    return (run.outcome, run.name, seconds, run.accelerator, skipped, sent, run.rule or "")
