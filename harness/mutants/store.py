# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of each run of a mutant, and of each build: one line of a file, appended at once.

A second command goes on where the first one was.  What is kept is about one QEMU (its source and patches) and
one text of a scenario: when either changes, the run is made again.  The judge may have learnt meanwhile; what
has passed is asked again with ``--again``.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError

MUTANT_RUNS: Final = "mutants.jsonl"
#: In the place of a mutant's id: QEMU as it is.
CONTROL: Final = "control"


@dataclass(frozen=True, slots=True)
class MutantRun:
    """One run, or (``scenario`` is empty) a build that gave nothing to run.

    ``key``: of the QEMU that was mutated; ``text``: of the scenario.  ``word``: ``pass``, ``fail``, ``none``
    (it ended without a verdict), ``does-not-build``, or ``same`` (the compiler makes the same of it).
    """

    key: str
    mutant: str
    file: str
    scenario: str
    text: str
    word: str
    rule: str = ""
    why: str = ""
    seconds: float = 0.0
    folder: str = ""


class RunStore:
    """The runs of one folder; may be used by several threads."""

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / MUTANT_RUNS
        self._key = key
        self._lock = threading.Lock()
        self._runs = [run for run in self._read() if run.key == key]

    def add(self, run: MutantRun) -> None:
        """Keep a run, at once."""
        with self._lock:
            self._runs.append(run)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(run)) + "\n")

    def all(self) -> list[MutantRun]:
        """All runs with this QEMU."""
        with self._lock:
            return list(self._runs)

    def of(self, mutant: str) -> list[MutantRun]:
        """All that was kept of a mutant, in order."""
        return [run for run in self.all() if run.mutant == mutant]

    def _read(self) -> Iterator[MutantRun]:
        if not self._path.exists():
            return
        for number, line in enumerate(self._path.read_text("utf-8").splitlines(), 1):
            try:
                yield MutantRun(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise MachineryError(
                    f"{self._path}:{number}: not a run of a mutant", hint="remove the file to begin anew"
                ) from error
