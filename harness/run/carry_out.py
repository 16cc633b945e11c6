# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from a plan to a verdict: all of its steps, in their order."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness.errors import ExitCode, GuestLost, MachineryError
from harness.events import EventStream, jsonable
from harness.explain.store import PAGES_FILE
from harness.plan.plan import RunPlan
from harness.report.folder import RUN_RESULT, RunFolder
from harness.run.boot import load_workload, ready_guest
from harness.terminal import TerminalProgress, print_error
from harness.units import human_size

if TYPE_CHECKING:
    from harness.report.result import Result
    from harness.run.boot import ReadyGuest
    from harness.run.early_crash import EarlyCrash
    from harness.run.several_guests.start_line import Line
    from harness.run.stand_still import StandStill

EXIT_CODES: Final = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "inconclusive": ExitCode.INCONCLUSIVE}


def carry_out(
    plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress, *, as_json: bool
) -> int:
    """The run itself, where the hosts are; returns the exit status."""
    try:
        result = _carry_out(plan, folder, events, terminal, as_json=as_json)
    except GuestLost as crash:
        from harness.run.early_crash import EarlyCrash

        if not isinstance(crash, EarlyCrash) or plan.hand.wanted:
            raise
        result = _of_crash(plan, folder, events, crash)
        with terminal.suspended():
            print_error(f"freepage: {crash.render()}")
    put_down(result, folder, events, as_json=as_json)
    with terminal.suspended():
        print_result(result, as_json=as_json)
    return exit_status(result)


def _carry_out(
    plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress, *, as_json: bool
) -> Result:
    if plan.resolved.scenario.guests > 1:
        from harness.run.several_guests.together import Ways, carry_out_together

        def write(result: Result, own: RunFolder, stream: EventStream) -> None:
            put_down(result, own, stream, as_json=as_json)

        return carry_out_together(plan, folder, events, Ways(_judged, _of_crash, write))
    with ready_guest(plan, folder, events, meanwhile=_import_rest) as ready:
        stand = None
        if plan.hand.wanted:
            from harness.run.stand_still import StandStill

            stand = StandStill(plan.hand, ready.guest, ready.lab, folder, events, terminal)
        return _judged(ready, folder, events, stand=stand)


def _of_crash(plan: RunPlan, folder: RunFolder, events: EventStream, crash: EarlyCrash) -> Result:
    """The result of a run whose guest never came to be migrated, for its QEMU had crashed."""
    from harness.run.early_crash import findings_of_crash
    from harness.run.result import build_result

    findings = findings_of_crash(crash, plan.resolved)
    result, _ = build_result(plan, folder, events, findings, None, crash.guest)
    return result


def _judged(
    ready: ReadyGuest,
    folder: RunFolder,
    events: EventStream,
    line: Line | None = None,
    *,
    stand: StandStill | None = None,
) -> Result:
    """A guest that is ready: loaded, migrated, judged and asked."""
    last_message = load_workload(ready, events)
    from harness.run.journey import Journey

    journey = Journey(ready, folder, events, last_message, stand, line)
    with journey.migrate_and_judge() as end:
        findings = journey.check(end)
    from harness.run.without_migration import look_without_migration

    findings = look_without_migration(ready, folder, events, findings)
    from harness.evidence.keep import keep
    from harness.run.result import build_result

    with events.step("report"):
        result, judgement = build_result(
            ready.plan, folder, events, findings, ready.lab.report(), ready.guest
        )
        evidence = findings.evidence
        if evidence is not None:
            with _beside_the_verdict("what is known of each page", events):
                keep(evidence, judgement, _title(result), folder, events)
        if judgement.verdict == "fail":
            with _beside_the_verdict("the guest's disk", events):
                ready.guest.keep_disk()
    if stand is not None:
        stand.ended(result.verdict, result.reason, max(1, len(findings.moves)))
        result = _by_hand(result, stand, events)
    if findings.guest.answers is not None:
        with _beside_the_verdict("the guest's answers", events):
            folder.write_whole("guest.json", json.dumps(jsonable(findings.guest.answers), indent=2) + "\n")
    return result


def _by_hand(result: Result, stand: StandStill, events: EventStream) -> Result:
    """The same, which says where somebody had it stand still."""
    from harness.report.by_hand import stops_in_words

    for point in stand.missed:
        events.emit("warning", text=f"--pause-at {point}: that moment did not come")
    reason = result.reason + stops_in_words(stand.stops)
    return result.model_copy(update={"by_hand": stand.stops, "reason": reason})


@contextlib.contextmanager
def _beside_the_verdict(what: str, events: EventStream) -> Iterator[None]:
    """A full disk costs what explains a verdict, and not the verdict."""
    try:
        yield
    except OSError as error:
        text = f"{what} could not be kept: {error.strerror or error}"
        events.emit("warning", text=text, hint="the verdict does not rest on it")


def put_down(result: Result, folder: RunFolder, events: EventStream, *, as_json: bool) -> None:
    """Write the result into its folder, which is complete then.

    Raises :class:`MachineryError` where there is no room for it; it has been printed then.
    """
    try:
        try:
            folder.write_whole(RUN_RESULT, result.to_json())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # What explains the verdict makes room for the verdict.
            folder.file(PAGES_FILE).unlink(missing_ok=True)
            folder.write_whole(RUN_RESULT, result.to_json())
    except OSError as error:
        print_result(result, as_json=as_json)
        text = f"the verdict is {result.verdict!r} ({result.reason}), and {RUN_RESULT} cannot be written"
        raise MachineryError(f"{text}: {error.strerror or error}") from error
    events.emit("verdict", verdict=result.verdict, reason=result.reason)
    folder.finish()


def exit_status(result: Result) -> int:
    """0 for a verdict that the scenario is written to show; a pass in its place is a failure."""
    if result.as_expected:
        return ExitCode.PASS
    return ExitCode.FAIL if result.verdict == "pass" else EXIT_CODES[result.verdict]


def _import_rest() -> None:
    """While the guest boots on its CPU, what the rest of the run needs is loaded on ours."""
    importlib.import_module("harness.run.journey")


def print_result(result: Result, *, as_json: bool) -> None:
    """The command's output: the summary, or the document."""
    if as_json:
        # A reader that is gone, or a full device, is noticed here and not when nobody can say so any more.
        print(result.to_json(), end="", flush=True)  # noqa: T201 - this is the command's output
        return
    from harness.report.summary import print_summary

    print_summary(result)


def _title(result: Result) -> str:
    return f"{result.verdict}: {result.scenario}, arm {result.arm}, {human_size(result.memory_bytes)}"
