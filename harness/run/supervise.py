# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run``: from the command line to the exit status.

For a lab these are two processes.  The one that the user started resolves and prepares, then
forks into the lab (:func:`harness.hosts.enter.enter`) and waits.  The one in the lab does the rest
and reports; when it ends, however it ends, nothing of the run is left but its folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.errors import FreepageError, InputError
from harness.events import EventStream, JsonLinesFile
from harness.hosts.signals import polite_signals
from harness.hosts.this_machine import command_start
from harness.last_resort import in_words
from harness.plan.by_hand import NOT_BY_HAND, ByHand, demand_reachable
from harness.plan.kinds import kind_of
from harness.plan.plan import RunPlan, Tools
from harness.plan.prepare import load_with_tools, prepare
from harness.plan.saving import demand_direct_io
from harness.report.folder import RUN_RESULT, RunFolder, demand_new
from harness.run.replay_command import REPLAY_FILE, SCENARIO_FILE, replay_command
from harness.scenario.load import Override
from harness.terminal import TerminalProgress, print_error

INTERRUPTED: Final = 130

_Work = Callable[[RunPlan, RunFolder, EventStream, TerminalProgress], int]


def run_scenario(
    name: str,
    changes: Sequence[str | Override],
    tools: Tools,
    *,
    out: Path | None,
    as_json: bool,
    hand: ByHand = NOT_BY_HAND,
) -> int:
    """Run a scenario and report; returns the exit status.

    ``hand``: where a person wants it to stand still.
    """

    def work(plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress) -> int:
        from harness.run.carry_out import carry_out

        return carry_out(plan, folder, events, terminal, as_json=as_json)

    return _on_hosts(name, changes, tools, out, work, hand=hand)


def open_shell(name: str, changes: Sequence[str | Override], tools: Tools, *, out: Path | None) -> int:
    """Boot a scenario's guest and give a shell in it; returns the shell's exit status."""

    # Imported by the process that needs it: ssh takes a while to load.
    def work(plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress) -> int:
        from harness.run.shell import guest_shell

        return guest_shell(plan, folder, events, terminal)

    return _on_hosts(name, changes, tools, out, work, networked="a shell")


def _on_hosts(
    name: str,
    changes: Sequence[str | Override],
    tools: Tools,
    out: Path | None,
    work: _Work,
    *,
    networked: str | None = None,
    hand: ByHand = NOT_BY_HAND,
) -> int:
    """Prepare, and do ``work`` where the hosts are.  ``networked``: what of it needs the guest's network."""
    began = command_start()
    scenario, tools = load_with_tools(name, changes, tools)
    # Said before minutes of building, not after.
    demand_new(out)
    if any(how.direct_io for how in scenario.migrations):
        demand_direct_io(out if out is not None else Path.cwd())
    kind = kind_of(scenario)
    if networked is not None:
        kind.demand_network(networked)
    if hand.wanted:
        if not kind.local:
            raise InputError(
                "a run stands still in a lab only (--keep, --pause-at): these hosts are machines of yours",
                hint="leave the section remote out, or --set remote=null",
            )
        demand_reachable(hand, scenario)
    events = EventStream()
    with contextlib.ExitStack() as stack:
        with TerminalProgress(events):
            machines = stack.enter_context(kind.reach(scenario, events))
            plan = replace(prepare(scenario, tools, events, began, machines), hand=hand)
        folder = _folder(plan, out, events)
        # What must not vanish behind a lab's own /run and /dev/shm.
        keep = [folder.path, *plan.files]
        return machines.run(lambda: _supervise(plan, folder, events, work), keep)


def _folder(plan: RunPlan, out: Path | None, events: EventStream) -> RunFolder:
    scenario = plan.resolved.scenario
    folder = RunFolder.create(out, scenario.name, scenario.arm)
    events.subscribe(JsonLinesFile(folder.file("events.jsonl")), replay=True)
    folder.write_text(SCENARIO_FILE, scenario.to_yaml())
    folder.write_text(REPLAY_FILE, replay_command(plan, folder))
    return folder


def _supervise(plan: RunPlan, folder: RunFolder, events: EventStream, work: _Work) -> int:
    """Run ``work``; every end of it leaves a folder that says how it was."""
    try:
        with polite_signals(), TerminalProgress(events) as terminal:
            return work(plan, folder, events, terminal)
    except KeyboardInterrupt:
        events.emit("interrupted")
        print_error("freepage: interrupted; nothing is left running")
        _end(folder, f"This run was interrupted{_during(events)}; there is no verdict.")
        return INTERRUPTED
    except Exception as error:
        return _failed(in_words(error, folder.path), folder, events)


def _failed(error: FreepageError, folder: RunFolder, events: EventStream) -> int:
    events.emit("error", text=error.message, type=type(error).__name__)
    print_error(f"freepage: {error.render()}")
    _end(folder, f"This run ended without a verdict{_during(events)}:\n\n{error.render()}")
    return error.exit_code


def _end(folder: RunFolder, note: str) -> None:
    """Say in the folder how the run ended; a verdict that is there is not taken back by what came later."""
    if folder.has_verdict:
        print_error(f"the verdict is kept: {folder.file(RUN_RESULT)}")
        return
    with contextlib.suppress(OSError):
        folder.finish(note)
    print_error(f"what there is of the run: {folder.path}")


def _during(events: EventStream) -> str:
    """In which step the run ended, as words."""
    steps = [event.data["step"] for event in events.history() if event.kind == "step-start"]
    return f" during step '{steps[-1]}'" if steps else ""
