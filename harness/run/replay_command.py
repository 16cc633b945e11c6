# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that makes a run again: written into its folder, and read from there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.accel import chain
from harness.errors import InputError
from harness.invoke import typed
from harness.plan.plan import RunPlan, Tools
from harness.reading import read_text
from harness.report.folder import LARGEST_RESULT, RUN_RESULT, RunFolder

#: In the run folder, from the run's first moment on.
REPLAY_FILE: Final = "replay"
SCENARIO_FILE: Final = "scenario.yaml"
_LONGEST: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """How a run was made."""

    scenario: Path
    tools: Tools
    nested: bool


def replay_command(plan: RunPlan, folder: RunFolder) -> str:
    """The command that makes this run again: the resolved scenario, seed included, and the same tools."""
    words = ["run", str(folder.file(SCENARIO_FILE)), *plan.tools.options()]
    # Machines of the user's own are reached as they are, whatever runs them.
    if chain() is not None and plan.machines.local:
        words.append("--nested")
    return typed(words)


def recorded_run(folder: Path) -> RecordedRun:
    """How the run of a folder was made.

    Raises :class:`InputError` for a folder that does not say it: what stands there is taken for options
    of :meth:`Tools.options`, and for nothing else.
    """
    scenario = folder / SCENARIO_FILE
    if not scenario.is_file():
        raise InputError(f"{folder} has no {SCENARIO_FILE}: it does not say what was run")
    tools, nested = parse_options(_words(folder), str(folder))
    return RecordedRun(scenario, tools, nested)


def _words(folder: Path) -> list[str]:
    """The words of the recorded command, from behind the scenario."""
    if (folder / REPLAY_FILE).exists():
        text = read_text(folder / REPLAY_FILE, _LONGEST, "a command")
    elif (folder / RUN_RESULT).exists():
        # A run of before there was such a file.
        text = _from_result(read_text(folder / RUN_RESULT, LARGEST_RESULT, "a result"), folder)
    else:
        raise InputError(f"{folder} has neither {REPLAY_FILE} nor {RUN_RESULT}: nothing says how it was run")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{folder}: the command of the run is no command: {error}") from error
    ends = [at for at, word in enumerate(words) if Path(word).name == SCENARIO_FILE]
    if not ends:
        raise InputError(f"{folder}: the command of the run names no {SCENARIO_FILE}")
    return words[ends[0] + 1 :]


def _from_result(text: str, folder: Path) -> str:
    try:
        result = json.loads(text)
    except ValueError as error:
        raise InputError(f"{folder / RUN_RESULT} is no JSON: {error}") from error
    found = result.get("replay") if isinstance(result, dict) else None
    if not isinstance(found, str):
        raise InputError(f"{folder / RUN_RESULT} does not say how it was run")
    return found


def parse_options(words: Sequence[str], where: str) -> tuple[Tools, bool]:
    """What :meth:`Tools.options` has written, and whether the run was nested; ``where``: for messages."""
    named: dict[str, str] = {}
    nested = warm = False
    known = ("--source-qemu", "--destination-qemu", "--qemu-source", "--kernel", "--fault")
    left = iter(words)
    for word in left:
        if word == "--nested":
            nested = True
            continue
        if word == "--warm":
            warm = True
            continue
        value = next(left, None)
        if word not in known or value is None:
            raise InputError(f"{where}: the command of the run has {word!r}, which no run writes there")
        named[word] = value
    tree = named.get("--qemu-source")
    tools = Tools(
        source_qemu=named.get("--source-qemu"),
        destination_qemu=named.get("--destination-qemu"),
        kernel=named.get("--kernel"),
        qemu_source=Path(tree) if tree is not None else None,
        fault=named.get("--fault"),
        warm=warm,
    )
    return tools, nested
