# SPDX-License-Identifier: GPL-2.0-or-later
"""What rules share: results that are computed once, and the facts.

An *analysis* is a pure function of the case, such as the replay of the device's log.
Whoever asks for it first has it computed::

    history = context.of(replay_of)

It sees no facts, so that it stays true when more of them become known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from harness.errors import MachineryError
from harness.verdict.case import JudgeInput

_Result = TypeVar("_Result")
Fact = TypeVar("Fact")


class Analyses:
    """Results of analyses of one case, each computed once."""

    def __init__(self, case: JudgeInput) -> None:
        self.case = case
        self._results: dict[object, object] = {}

    def of(self, analysis: Callable[[JudgeInput, Analyses], _Result]) -> _Result:
        """The result of an analysis."""
        if analysis not in self._results:
            self._results[analysis] = analysis(self.case, self)
        return cast(_Result, self._results[analysis])


class Context:
    """What a rule may ask for, beside the case."""

    def __init__(self, analyses: Analyses, facts: Sequence[object] = ()) -> None:
        self._analyses = analyses
        self._facts = {type(fact): fact for fact in facts}
        if len(self._facts) != len(facts):
            raise MachineryError(f"two facts of one kind are given to the judge: {list(facts)!r}")

    def of(self, analysis: Callable[[JudgeInput, Analyses], _Result]) -> _Result:
        """The result of an analysis."""
        return self._analyses.of(analysis)

    def knows(self, kind: type[object]) -> bool:
        """Whether there is a fact of this kind."""
        return kind in self._facts

    def fact(self, kind: type[Fact]) -> Fact:
        """A fact that the rule needs.  Raises :class:`MachineryError` if nobody gave it to the judge."""
        if kind not in self._facts:
            raise MachineryError(f"a rule asks for {kind.__name__}, which it does not say that it needs")
        return cast(Fact, self._facts[kind])
