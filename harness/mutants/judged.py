# SPDX-License-Identifier: GPL-2.0-or-later
"""What its runs make of a mutant.  Pure.

A mutant is caught by a verdict: ``fail``, by a rule.  A run that ends without one (a QEMU that died, a
migration that did not come to its end) has noticed something and proven nothing: such mutants are counted
apart, and not as caught.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from harness.errors import ExitCode
from harness.mutants.draw import Mutant
from harness.mutants.store import MutantRun

MutantWord: TypeAlias = Literal[
    "caught", "noticed", "survived", "equivalent", "does-not-build", "same", "open"
]
#: So many runs without a verdict, and nothing more is asked of a mutant: it breaks QEMU plainly.
ENOUGH_ERRORS: Final = 2
NOT_EQUIVALENT: Final = ("caught", "noticed", "survived")


def run_word(status: int) -> Literal["pass", "fail", "none"]:
    """What a run's exit status says of a mutant."""
    if status == ExitCode.PASS:
        return "pass"
    return "fail" if status == ExitCode.FAIL else "none"


@dataclass(frozen=True, slots=True)
class JudgedMutant:
    """A mutant, and what became of it.

    ``rule``, ``scenario``: of the run that has caught it.  ``why``: of what is not caught, what there is to
    say.  ``runs``: how many were made; ``seconds``: all of them together.
    """

    mutant: Mutant
    word: MutantWord
    rule: str = ""
    scenario: str = ""
    why: str = ""
    runs: int = 0
    seconds: float = 0.0
    folder: str = ""


def judge_mutant(mutant: Mutant, runs: Sequence[MutantRun], *, complete: bool) -> JudgedMutant:
    """``complete``: there is no scenario left that it could be run against."""
    seconds = round(sum(run.seconds for run in runs), 1)
    caught = next((run for run in runs if run.word == "fail"), None)
    without = [run for run in runs if run.word == "none"]
    if caught is not None:
        return JudgedMutant(
            mutant, "caught", caught.rule, caught.scenario, caught.why, len(runs), seconds, caught.folder
        )
    if without and (complete or len(without) >= ENOUGH_ERRORS):
        last = without[-1]
        return JudgedMutant(mutant, "noticed", "", last.scenario, last.why, len(runs), seconds, last.folder)
    word: MutantWord = "survived" if complete else "open"
    return JudgedMutant(mutant, word, runs=len(runs), seconds=seconds)


def counted(judged: Iterable[JudgedMutant]) -> dict[str, int]:
    """How many of each word."""
    found: dict[str, int] = dict.fromkeys(
        ("caught", "noticed", "survived", "equivalent", "does-not-build", "same", "open"), 0
    )
    for one in judged:
        found[one.word] += 1
    return found


def score(counts: Mapping[str, int]) -> float | None:
    """Percent of the mutants that are not equivalent that were caught; None: there is none to count."""
    total = sum(counts[word] for word in NOT_EQUIVALENT)
    return round(100 * counts["caught"] / total, 1) if total else None
