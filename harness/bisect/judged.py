# SPDX-License-Identifier: GPL-2.0-or-later
"""What a commit is, by its runs; and how sure the answer is.  Nothing here touches a file or a process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import ExitCode
from harness.run.odds import CONFIDENCE, least_rate, missed, runs_to_tell
from harness.run.one_run import MadeRun

#: The chance of a wrong answer that more runs are recommended for.
WANTED_RISK = 0.05


@dataclass(frozen=True, slots=True)
class JudgedCommit:
    """A commit, its runs, and what they make of it.  ``skip``: neither good nor bad can be said."""

    commit: str
    word: Literal["good", "bad", "skip"]
    why: str
    runs: tuple[MadeRun, ...] = ()

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(run.exit_status == ExitCode.FAIL for run in self.runs)

    @property
    def passed(self) -> int:
        """Runs that passed."""
        return sum(run.exit_status == ExitCode.PASS for run in self.runs)


def same_failure(run: MadeRun, rules: frozenset[str]) -> bool:
    """Whether a run failed by one of these rules; without any rule each failure counts."""
    return run.exit_status == ExitCode.FAIL and (not rules or not rules.isdisjoint(run.rules))


def judge_commit(commit: str, runs: Sequence[MadeRun], rules: frozenset[str]) -> JudgedCommit:
    """``rules``: those by which the bad end fails.  Good is what passes all its runs."""
    kept = tuple(runs)
    for run in runs:
        if same_failure(run, rules):
            return JudgedCommit(commit, "bad", run.reason, kept)
    for run in runs:
        if run.exit_status == ExitCode.FAIL:
            return JudgedCommit(
                commit, "skip", f"it fails otherwise ({', '.join(run.rules)}): {run.reason}", kept
            )
        if run.exit_status != ExitCode.PASS:
            return JudgedCommit(commit, "skip", f"{run.word}: {run.reason}", kept)
    if not runs:
        return JudgedCommit(commit, "skip", "it was not run")
    return JudgedCommit(commit, "good", f"{len(kept)} runs passed", kept)


@dataclass(frozen=True, slots=True)
class Sureness:
    """How sure an answer is.

    A commit that is called bad has failed by a rule by which the bad end fails; what may be wrong is a commit
    that is called good, has the fault, and passed all the same.
    """

    #: Of the bad end's runs.
    failed: int
    runs: int
    #: How many runs each commit has passed that was called good.
    passes: tuple[int, ...]

    @property
    def seen(self) -> float:
        """The rate of failures that was seen."""
        return self.failed / self.runs

    @property
    def least(self) -> float:
        """The lowest rate that fits what was seen."""
        return least_rate(self.failed, self.runs)

    def risk(self, rate: float) -> float:
        """The chance that at least one of the commits would have been called good with the fault in it."""
        return 1 - math.prod(1 - missed(rate, passes) for passes in self.passes)

    def enough(self) -> int:
        """So many runs of each commit would do, at the lowest rate."""
        each = 1 - (1 - WANTED_RISK) ** (1 / max(1, len(self.passes)))
        return runs_to_tell(self.least, each)

    def lines(self) -> list[str]:
        """The arithmetic, for people."""
        sure = f"{100 * CONFIDENCE:.0f} %"
        lines = [
            f"the bad end failed in {self.failed} of {self.runs} runs: a rate of {_percent(self.seen)}, "
            f"and with {sure} confidence of {_percent(self.least)} or more"
        ]
        if not self.passes:
            return [*lines, "no commit was called good for having passed: nothing rests on a rate"]
        fewest, count = min(self.passes), len(self.passes)
        chances = [
            f"(1 - {rate:.3g})^{fewest} = {_percent(missed(rate, fewest))}"
            for rate in (self.seen, self.least)
        ]
        lines.append(
            f"{count} commits were called good, each after {fewest} passes or more; one with the fault "
            f"passes so with a chance of {chances[0]}, and of {chances[1]} at the lowest rate"
        )
        lines.append(
            f"so the answer is wrong with a chance of {_percent(self.risk(self.seen))} at the rate that was "
            f"seen, and of {_percent(self.risk(self.least))} at the lowest rate"
        )
        if self.risk(self.least) > WANTED_RISK:
            lines.append(f"--repeat {self.enough()} brings the latter below {_percent(WANTED_RISK)}")
        return lines


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
