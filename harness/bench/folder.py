# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a bench: its plan, a folder for each run, and what came of each.

    plan.json       the request; a bench goes on only with the same one
    runs/NNN-...    the run folders
    runs.jsonl      a line for each run that has ended, in whichever way
    bench.json, report.html, table.md

A bench that was interrupted goes on where it was.  A run that has a line is never
made again, whatever its outcome: repeating what failed until it passes would hide it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.bench.plan import PlannedRun
from harness.errors import InputError


@dataclass(frozen=True, slots=True)
class BenchRunEnd:
    """What came of one run: its exit status, and why there is no result, if there is none."""

    number: int
    status: int
    error: str
    seconds: float
    #: The machine's load average when it began.
    load: float | None = None


class BenchFolder:
    """Use :meth:`open`."""

    def __init__(self, path: Path, request: dict[str, Any]) -> None:
        self.path = path
        self.request = request

    @classmethod
    def open(cls, path: Path | None, request: dict[str, Any]) -> BenchFolder:
        """A new folder, or one in which the same bench was begun; :class:`InputError` otherwise."""
        if path is None:
            path = Path.cwd() / "benches" / f"{datetime.now():%Y%m%d-%H%M%S}"
        plan = path / "plan.json"
        if plan.exists():
            known = json.loads(plan.read_text(encoding="utf-8"))
            differing = [key for key in request if known.get(key) != request[key] and key != "started"]
            if differing:
                raise InputError(
                    f"{path} holds another bench: {', '.join(differing)} differ",
                    hint="give --out another folder, or repeat the command that is in its plan.json",
                )
            return cls(path.resolve(), known)
        if path.exists() and any(path.iterdir()):
            raise InputError(f"{path} exists, and is no bench's folder", hint="give --out another folder")
        try:
            (path / "runs").mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path}: {error.strerror}") from error
        request = {**request, "started": datetime.now(UTC).isoformat(timespec="seconds")}
        plan.write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
        return cls(path.resolve(), request)

    def run_folder(self, run: PlannedRun) -> Path:
        """Where a run's own folder is."""
        return self.path / "runs" / run.folder

    def make_room(self, run: PlannedRun) -> Path:
        """A name that is free for a run's folder; what an interrupted one left is kept under another."""
        place = self.run_folder(run)
        if place.exists():
            attempt = 1
            while (aside := place.with_name(f"{place.name}.interrupted-{attempt}")).exists():
                attempt += 1
            place.rename(aside)
        return place

    def outcomes(self) -> dict[int, BenchRunEnd]:
        """The outcome of every run that has ended, by the run's number."""
        path = self.path / "runs.jsonl"
        if not path.exists():
            return {}
        found = (BenchRunEnd(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
        return {outcome.number: outcome for outcome in found}

    def add(self, outcome: BenchRunEnd) -> None:
        """Note the outcome of a run."""
        line = {
            "number": outcome.number,
            "status": outcome.status,
            "error": outcome.error,
            "seconds": round(outcome.seconds, 3),
            "load": outcome.load,
        }
        with (self.path / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write(self, name: str, text: str) -> Path:
        """Write what is made of the runs; made anew whenever a bench goes on."""
        path = self.path / name
        draft = path.with_name(f".{name}.part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        return path
