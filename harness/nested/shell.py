# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage shell --nested``: the guest, and a shell in it, in a machine that has KVM."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.events import EventStream
from harness.nested.commands import (
    NestedRun,
    demand_nestable,
    interruptible,
    kept_console,
    memory_for,
    named_files,
    nested,
    nested_environment,
    scenario_file,
)
from harness.nested.keyboard import Keyboard
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.run.several import run_folders
from harness.scenario.load import Override
from harness.terminal import TerminalProgress, raw_mode


def open_shell_nested(name: str, changes: Sequence[str | Override], tools: Tools, *, out: Path | None) -> int:
    """Build what is needed, boot the machine, and open the shell in it; returns its exit status."""
    scenario, tools = load_with_tools(name, changes, tools)
    demand_nestable(scenario)
    (folder,) = run_folders([scenario], out)
    run = NestedRun(scenario, tools, folder)
    events = EventStream()
    with TerminalProgress(events) as terminal, interruptible():
        run.prepare(events)
        memory = memory_for([scenario])
        with (
            nested(events, memory=memory, writable=[folder.parent], visible=named_files([run])) as machine,
            terminal.suspended(),
            kept_console(machine, folder),
        ):
            descriptor = sys.stdin.fileno()
            keyboard = Keyboard(descriptor)
            raw = raw_mode(descriptor) if os.isatty(descriptor) else contextlib.nullcontext()
            place = scenario_file(run)
            with raw:
                return machine.run(
                    shell_words(run, place),
                    cwd=Path.cwd(),
                    env={**nested_environment(), "TERM": os.environ.get("TERM", "vt100")},
                    files={place: scenario.to_yaml()},
                    keyboard=keyboard,
                )


def shell_words(run: NestedRun, place: str) -> list[str]:
    """The command inside."""
    tools = run.tools
    words = ["shell", place, "--accel", "kvm", "--out", str(run.folder)]
    words += ["--qemu", tools.source_qemu] if tools.source_qemu else []
    words += ["--kernel", tools.kernel] if tools.kernel else []
    words += ["--qemu-source", str(tools.qemu_source.resolve())] if tools.qemu_source else []
    return words
