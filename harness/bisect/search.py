# SPDX-License-Identifier: GPL-2.0-or-later
"""The search: both ends are looked at first, then what ``git bisect`` asks for, until it has the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.bisect.git import Ended, Next, Word
from harness.bisect.judged import JudgedCommit, Sureness, judge_commit
from harness.errors import ExitCode, InputError
from harness.run.odds import most_rate
from harness.run.one_run import MadeRun


class DoesNotBuild(Exception):  # noqa: N818 - the name says what happened
    """A commit of which nothing comes that could be run; ``str()`` of it says why, in one line."""


class Chooser(Protocol):
    """``git bisect``, or what stands for it in a test."""

    def begin(self, good: str, bad: str) -> Next | Ended:
        """What is to be looked at first."""

    def tell(self, word: Word) -> Next | Ended:
        """What the commit is that was given last."""


class CommitBuilder(Protocol):
    """Makes of a commit what a run needs."""

    def build(self, commit: str) -> Callable[[int], MadeRun]:
        """What makes the commit's first, second, ... run.  Raises :class:`DoesNotBuild`."""


@dataclass(frozen=True, slots=True)
class FoundChange:
    """What came of a search.  More than one commit: between them nothing could be told."""

    commits: tuple[str, ...]
    looked_at: tuple[JudgedCommit, ...]
    sureness: Sureness


class Search:
    """One search.  ``told``: is told of each commit that was looked at."""

    def __init__(
        self,
        builder: CommitBuilder,
        chooser: Chooser,
        repeat: int,
        told: Callable[[JudgedCommit], None] = lambda _: None,
    ) -> None:
        self._builder = builder
        self._chooser = chooser
        self._repeat = repeat
        self._told = told
        self._looked_at: list[JudgedCommit] = []

    def find(self, good: str, bad: str) -> FoundChange:
        """Raises :class:`InputError` for an end that is not what it was said to be."""
        worst = self._bad_end(bad)
        rules = frozenset(rule for run in worst.runs for rule in run.rules)
        self._good_end(good)
        step = self._chooser.begin(good, bad)
        while isinstance(step, Next):
            step = self._chooser.tell(self._look_at(step.commit, rules).word)
        passes = tuple(one.passed for one in self._looked_at if one.word == "good")
        sureness = Sureness(worst.failed, len(worst.runs), passes)
        return FoundChange(step.commits, tuple(self._looked_at), sureness)

    def _bad_end(self, commit: str) -> JudgedCommit:
        """All its runs are made: of how many fail depends how much a pass tells."""
        runs = tuple(self._end(commit, "bad"))
        failed = [run for run in runs if run.exit_status == ExitCode.FAIL]
        if not failed:
            raise InputError(
                f"the bad end {commit[:12]} is not bad: none of {len(runs)} runs failed "
                f"({_outcomes(runs)}); the failure does not repeat",
                hint="with so many passes it comes in fewer than "
                f"{100 * most_rate(0, len(runs)):.2g} % of cases (95 % confidence): raise --repeat, "
                "or name the seed by which it failed (--seed)"
                if all(run.exit_status == ExitCode.PASS for run in runs)
                else f"what went wrong instead: {runs[0].reason}",
            )
        # A run that came to no verdict says nothing of the rate.
        judged = JudgedCommit(
            commit,
            "bad",
            failed[0].reason,
            tuple(run for run in runs if run.exit_status in (ExitCode.PASS, ExitCode.FAIL)),
        )
        self._note(judged)
        return judged

    def _good_end(self, commit: str) -> None:
        runs = self._end(commit, "good")
        wrong = [run for run in runs if run.exit_status != ExitCode.PASS]
        if wrong:
            raise InputError(
                f"the good end {commit[:12]} is not good: {len(wrong)} of {len(runs)} runs did not pass "
                f"({_outcomes(runs)}): {wrong[0].reason}",
                hint=f"the run: {wrong[0].folder}",
            )
        self._note(judge_commit(commit, runs, frozenset()))

    def _end(self, commit: str, which: str) -> list[MadeRun]:
        try:
            make = self._builder.build(commit)
        except DoesNotBuild as error:
            raise InputError(f"the {which} end {commit[:12]} cannot be run: {error}") from error
        return [make(number) for number in range(1, self._repeat + 1)]

    def _look_at(self, commit: str, rules: frozenset[str]) -> JudgedCommit:
        """Run until it is known to be bad, or often enough."""
        try:
            make = self._builder.build(commit)
        except DoesNotBuild as error:
            return self._note(JudgedCommit(commit, "skip", f"it does not build: {error}"))
        runs: list[MadeRun] = []
        while len(runs) < self._repeat:
            runs.append(make(len(runs) + 1))
            judged = judge_commit(commit, runs, rules)
            # What is neither good nor bad yet may still fail.
            if judged.word == "bad":
                return self._note(judged)
        return self._note(judge_commit(commit, runs, rules))

    def _note(self, judged: JudgedCommit) -> JudgedCommit:
        self._looked_at.append(judged)
        self._told(judged)
        return judged


def _outcomes(runs: list[MadeRun] | tuple[MadeRun, ...]) -> str:
    return ", ".join(run.word for run in runs)
