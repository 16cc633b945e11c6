# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folders that there are: which, how each ended, what lies in them, and which may go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError, MachineryError
from harness.reading import read_text
from harness.report.folder import INCOMPLETE_MARKER, LARGEST_RESULT, RUN_RESULT, is_run_folder
from harness.units import DAY

#: Where runs go that are not told where.
RUNS_FOLDER: Final = Path("runs")
#: The word for the newest one.
LAST: Final = "last"
#: One that is not complete may still be going on.
_MAY_RUN: Final = DAY


@dataclass(frozen=True, slots=True)
class KnownRun:
    """One run folder."""

    path: Path
    ended: float
    """When its last file was written, in seconds since 1970."""
    verdict: str
    """pass, fail, inconclusive; or "none" where there is no verdict, "unreadable" for a damaged result."""
    scenario: str
    arm: str
    reason: str
    """One sentence; of a run without a verdict, the first line of what its folder says."""
    size: int
    """Bytes on disk."""


def known_runs(parent: Path) -> list[KnownRun]:
    """All run folders in a folder, the oldest first.  :class:`InputError` if there is no such folder."""
    try:
        places = list(_run_folders(parent))
    except FileNotFoundError as error:
        raise InputError(f"there is no folder {parent}", hint="freepage run makes it") from error
    except OSError as error:
        raise InputError(f"cannot look into {parent}: {error.strerror}") from error
    return sorted((_known(path) for path in places), key=lambda run: (run.ended, run.path.name))


def _run_folders(parent: Path) -> Iterator[Path]:
    """Those of single runs, and of suites and the like, whose folders hold their runs' folders."""
    for path in parent.iterdir():
        if not path.is_dir() or path.is_symlink():
            continue
        if is_run_folder(path):
            yield path
            continue
        # Of another user's, say: then it is no folder of ours.
        with contextlib.suppress(OSError):
            yield from (one for one in path.iterdir() if one.is_dir() and is_run_folder(one))


def _known(path: Path) -> KnownRun:
    size, ended = 0, path.stat().st_mtime
    for place, _, names in os.walk(path):
        for name in names:
            try:
                about = Path(place, name).lstat()
            except OSError:  # a run that is going on takes files away
                continue
            size += about.st_blocks * 512
            ended = max(ended, about.st_mtime)
    verdict, scenario, arm, reason = _end(path)
    return KnownRun(path, ended, verdict, scenario, arm, reason, size)


def _end(path: Path) -> tuple[str, str, str, str]:
    if (path / INCOMPLETE_MARKER).exists() or not (path / RUN_RESULT).exists():
        try:
            lines = read_text(path / INCOMPLETE_MARKER, 1 << 20, "a marker").split("\n")
        except InputError:
            lines = [""]
        return "none", "", "", next((line for line in lines if line.strip()), "")
    try:
        # Only what is listed: the model of all of it takes its time, and there may be hundreds.
        data = json.loads(read_text(path / RUN_RESULT, LARGEST_RESULT, "a result"))
        return str(data["verdict"]), str(data["scenario"]), str(data["arm"]), str(data["reason"])
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return "unreadable", "", "", f"{RUN_RESULT} cannot be read"


def find_run(name: str, parent: Path = RUNS_FOLDER) -> Path:
    """The run folder that a user means: a path, a name in ``parent``, its beginning, or "last"."""
    if name == LAST:
        runs = known_runs(parent)
        if not runs:
            raise InputError(f"there is no run in {parent}")
        return runs[-1].path
    for path in (Path(name), parent / name):
        if name and path.is_dir() and is_run_folder(path):
            return path
    near = (
        [run.path for run in known_runs(parent) if run_name(run.path, parent).startswith(name)]
        if parent.is_dir()
        else []
    )
    if name and len(near) == 1:
        return near[0]
    if name and len(near) > 1:
        some = ", ".join(run_name(path, parent) for path in near[:4])
        raise InputError(f"{name!r} may be any of {len(near)} runs: {some}")
    raise InputError(f"there is no run {name!r}", hint=f"freepage runs list names those of {parent}")


def run_name(run: Path, parent: Path) -> str:
    """What a run is called in a folder of runs: one of a suite by the suite's folder and its own."""
    return str(run.relative_to(parent))


def files_of(run: Path) -> Iterator[tuple[str, int]]:
    """The files of a run folder, by their path below it, and their bytes."""
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(run)), path.stat().st_size


def log_of(run: Path, name: str) -> Path:
    """A file of a run folder by its name; never one outside of it."""
    path = run / name
    if not name or not path.resolve().is_relative_to(run.resolve()) or not path.is_file():
        text = sorted(file for file, _ in files_of(run) if file.endswith((".log", ".jsonl", ".txt", ".out")))
        raise InputError(f"{run} has no file {name!r}", hint=f"there are {', '.join(text[:12])}")
    return path


def prune_runs(
    runs: Sequence[KnownRun], *, days: float, keep: int, verdicts: Sequence[str], dry_run: bool
) -> Iterator[KnownRun]:
    """Take away run folders: those that are older than so many days, but for the newest ``keep``.

    ``verdicts``: only runs that ended so.  One without a verdict that has been written to within a day may
    be going on, and stays.
    """
    now = time.time()
    for run in runs[: max(0, len(runs) - keep)]:
        age = now - run.ended
        if age < days * DAY or run.verdict not in verdicts or (run.verdict == "none" and age < _MAY_RUN):
            continue
        if not dry_run:
            try:
                shutil.rmtree(run.path)
            except OSError as error:
                raise MachineryError(f"cannot take {run.path} away: {error.strerror}") from error
        yield run
