# SPDX-License-Identifier: GPL-2.0-or-later
"""Several scenarios in one command: where their run folders are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import InputError
from harness.report.folder import RunFolder, demand_new
from harness.scenario.load import Scenario


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
