# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from a plan to a verdict: all of its steps, in their order."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Final

from harness.errors import ExitCode
from harness.events import EventStream, jsonable
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.boot import load_workload, ready_guest
from harness.terminal import TerminalProgress
from harness.units import human_size

if TYPE_CHECKING:
    from harness.report.result import Result

EXIT_CODES: Final = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "inconclusive": ExitCode.INCONCLUSIVE}


def carry_out(
    plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress, *, as_json: bool
) -> int:
    """The run itself, where the hosts are; returns the exit status."""
    with ready_guest(plan, folder, events, meanwhile=_import_rest) as ready:
        last_message = load_workload(ready, events)
        from harness.run.journey import Journey

        journey = Journey(ready, folder, events, last_message)
        with journey.migrate_and_judge() as end:
            findings = journey.check(end)
        from harness.run.without_migration import look_without_migration

        findings = look_without_migration(ready, folder, events, findings)
        from harness.evidence.keep import keep
        from harness.run.result import build_result

        with events.step("report"):
            result, judgement = build_result(plan, folder, events, findings, ready.lab.report())
            if findings.evidence is not None:
                keep(findings.evidence, judgement, _title(result), folder, events)
            if judgement.verdict == "fail":
                ready.guest.keep_disk()
    if findings.guest.answers is not None:
        folder.write_whole("guest.json", json.dumps(jsonable(findings.guest.answers), indent=2) + "\n")
    folder.write_whole("result.json", result.to_json())
    events.emit("verdict", verdict=result.verdict, reason=result.reason)
    folder.finish()
    with terminal.suspended():
        _print(result, as_json=as_json)
    return exit_status(result)


def exit_status(result: Result) -> int:
    """0 for a verdict that the scenario is written to show; a pass in its place is a failure."""
    if result.as_expected:
        return ExitCode.PASS
    return ExitCode.FAIL if result.verdict == "pass" else EXIT_CODES[result.verdict]


def _import_rest() -> None:
    """While the guest boots on its CPU, what the rest of the run needs is loaded on ours."""
    importlib.import_module("harness.run.journey")


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        # A reader that is gone, or a full device, is noticed here and not when nobody can say so any more.
        print(result.to_json(), end="", flush=True)  # noqa: T201 - this is the command's output
        return
    from harness.report.summary import print_summary

    print_summary(result)


def _title(result: Result) -> str:
    return f"{result.verdict}: {result.scenario}, arm {result.arm}, {human_size(result.memory_bytes)}"
