# SPDX-License-Identifier: GPL-2.0-or-later
"""Several scenarios in one command: one after the other, each with a run folder of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, FreepageError, InputError
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.report.folder import RunFolder, demand_new
from harness.scenario.load import Override, Scenario
from harness.terminal import print_error

INTERRUPTED: Final = 130

#: Of several exit statuses, the one that counts: the first of these that occurred.
_GRAVITY: Final = (
    INTERRUPTED,
    ExitCode.ERROR,
    ExitCode.INPUT,
    ExitCode.FAIL,
    ExitCode.INCONCLUSIVE,
    ExitCode.PASS,
)


def run_scenarios(
    names: Sequence[str], changes: Sequence[str | Override], tools: Tools, *, out: Path | None, as_json: bool
) -> int:
    """Run scenarios one after the other; returns the exit status that counts.

    A run without a verdict does not keep the others from running; an interrupted one does.
    """
    from harness.run.supervise import run_scenario

    if len(names) == 1:
        return run_scenario(names[0], changes, tools, out=out, as_json=as_json)
    # What is wrong with the last of them is said before the first runs.
    folders = run_folders([load_with_tools(name, changes, tools)[0] for name in names], out)
    statuses: list[int] = []
    for name, folder in zip(names, folders, strict=True):
        try:
            statuses.append(run_scenario(name, changes, tools, out=folder, as_json=as_json))
        except FreepageError as error:
            print_error(f"freepage: {error.render()}")
            statuses.append(error.exit_code)
        if statuses[-1] == INTERRUPTED:
            break
    return worst(statuses)


def worst(statuses: Iterable[int]) -> int:
    """Of several exit statuses the one that counts: no verdict before a failure, a failure before doubt."""
    found = set(statuses)
    return next((int(status) for status in _GRAVITY if status in found), max(found, default=0))


def run_folders(scenarios: Sequence[Scenario], out: Path | None) -> list[Path]:
    """Where each run folder will be; none of them exists.  Several runs share the folder ``out``.

    Raises :class:`InputError` if ``out`` exists.
    """
    demand_new(out)
    if out is not None and len(scenarios) == 1:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        return [out.absolute()]
    parent = (out or Path("runs")).absolute()
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {parent}: {error.strerror}", hint="give --out DIR"
        ) from error
    folders: list[Path] = []
    for scenario in scenarios:
        stem = (
            f"{scenario.name}-{scenario.arm}"
            if out is not None
            else RunFolder.stem(scenario.name, scenario.arm)
        )
        names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 1000))
        folders.append(
            next(place for name in names if (place := parent / name) not in folders and not place.exists())
        )
    return folders
