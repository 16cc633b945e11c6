# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bench --nested``: the whole bench in a machine around it that has KVM."""

from __future__ import annotations

from pathlib import Path

from harness.bench.command import INSIDE, BenchOrder, check_points, scenarios_of
from harness.bench.folder import BenchFolder
from harness.errors import InputError
from harness.events import EventStream
from harness.nested.commands import memory_for, nested, nested_environment, prepare_here
from harness.plan.plan import Tools
from harness.terminal import TerminalProgress


def bench_nested(wanted: BenchOrder, tools: Tools, out: Path | None, *, as_json: bool) -> int:
    """Build what is needed, boot the machine, and run the same bench in it; returns its exit status.

    The folder is made here, so that it can be gone on with; what is in it is written inside.
    """
    if "--accel" in wanted.request.options:
        raise InputError("--accel has nothing to choose beside --nested, which is for KVM")
    inside = wanted.with_options(INSIDE)
    check_points(inside)
    events = EventStream()
    with TerminalProgress(events) as terminal:
        scenarios = scenarios_of(wanted)
        for scenario in scenarios:
            prepare_here(scenario, tools, events)
        folder = BenchFolder.open(out, inside.as_dict())
        memory = memory_for(scenarios)
        named = [Path(name) for name in wanted.scenarios if Path(name).is_file()]
        with nested(events, memory=memory, writable=[folder.path], visible=named) as machine:
            words = [*inside.words(), "--out", str(folder.path), *(["--json"] if as_json else [])]
            with terminal.suspended():
                return machine.run(words, cwd=Path.cwd(), env=nested_environment())
