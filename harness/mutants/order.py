# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order scenarios are tried: those first that have caught most, in the same file before elsewhere.

Pure.  What was not tried yet comes in the order of the suite; nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.mutants.store import MutantRun

#: A catch in the same file counts so many times one elsewhere.
_SAME_FILE: Final = 8.0
#: Before anything is known: as if a scenario had caught one in so many runs.
_PRIOR: Final = 6.0


def best_first(scenarios: Sequence[str], file: str, runs: Sequence[MutantRun]) -> list[str]:
    """The scenarios, for a mutant of this file, given all runs until now."""

    def worth(name: str) -> float:
        caught = tried = 0.0
        for run in runs:
            if run.scenario == name:
                weight = _SAME_FILE if run.file == file else 1.0
                tried += weight
                caught += weight if run.word == "fail" else 0.0
        return (caught + 1) / (tried + _PRIOR)

    return sorted(scenarios, key=lambda name: (-worth(name), scenarios.index(name)))
