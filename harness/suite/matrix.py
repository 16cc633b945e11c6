# SPDX-License-Identifier: GPL-2.0-or-later
"""What a suite's file asks for, before any scenario is read: each scenario in each combination.

Nothing of a scenario's model is imported unless something is checked: ``freepage suite list`` only counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.scenario.located import Path as TreePath
from harness.scenario.located import Problem, WrittenFloat, WrittenInt, dotted
from harness.scenario.shipped import shipped_names
from harness.suite.load import LoadedSuite
from harness.suite.model import SHORT_DIMENSIONS, TOOL_DIMENSIONS, SuiteEntry

_ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class MatrixValue:
    """One value of one dimension, and where it was written."""

    dimension: str
    value: object
    path: TreePath

    @property
    def text(self) -> str:
        """As it is written in the name of a run."""
        return _text(self.value)


class Matrix:
    """The combinations of one suite; what is wrong in its file is gathered in ``problems``."""

    def __init__(self, loaded: LoadedSuite) -> None:
        self._loaded = loaded
        self.problems: list[str] = []

    def wrong(self, path: TreePath, text: str) -> None:
        """Add a problem of a place in the file."""
        self.problems.append(str(Problem(self._loaded.tree.place(path), dotted(path), text)))

    def count(self) -> int:
        """How many runs there are, with repeats.  Nothing that is wrong is found."""
        return sum(
            sum(not out for *_, out in self._combinations(entry, ("runs", number)))
            * (entry.repeat if entry.repeat is not None else self._loaded.suite.repeat)
            for number, entry in enumerate(self._loaded.suite.runs)
        )

    def chosen(self, number: int, entry: SuiteEntry) -> Iterator[tuple[MatrixValue, Sequence[MatrixValue]]]:
        """Each scenario of an entry in each combination that is not excluded."""
        path: TreePath = ("runs", number)
        for name in entry.matrix:
            self._demand_known(name, (*path, "matrix", name))
        self._demand_shipped(entry, path)
        unused = {
            at for at in range(len(entry.exclude)) if self._excludable(entry, at, (*path, "exclude", at))
        }
        for scenario, values, out in self._combinations(entry, path):
            unused -= out
            if not out:
                yield scenario, values
        for at in sorted(unused):
            self.wrong((*path, "exclude", at), "nothing in this entry is so")

    def _combinations(
        self, entry: SuiteEntry, path: TreePath
    ) -> Iterator[tuple[MatrixValue, Sequence[MatrixValue], set[int]]]:
        """All of an entry, and which of its exclusions each is subject to."""
        axes = [
            [MatrixValue(name, value, (*path, "matrix", name, at)) for at, value in enumerate(values)]
            for name, values in entry.matrix.items()
        ]
        for scenario, chosen in itertools.product(self._scenarios(entry, path), itertools.product(*axes)):
            texts = {"scenario": scenario.text, **{value.dimension: value.text for value in chosen}}
            yield (
                scenario,
                chosen,
                {at for at, words in enumerate(entry.exclude) if _matches(words, texts)},
            )

    def _scenarios(self, entry: SuiteEntry, path: TreePath) -> list[MatrixValue]:
        found: list[MatrixValue] = []
        for at, name in enumerate(entry.scenarios):
            here = (*path, "scenarios", at)
            names = [one for one in shipped_names() if one not in entry.leave_out] if name == _ALL else [name]
            found += [MatrixValue("scenario", one, here) for one in names]
        return found

    def _demand_shipped(self, entry: SuiteEntry, path: TreePath) -> None:
        from harness.scenario.problems import did_you_mean

        shipped = shipped_names()
        for at, name in enumerate(entry.leave_out):
            if name not in shipped:
                words = f"no such scenario: {name!r}; {did_you_mean(name, shipped)}".strip("; ")
                self.wrong((*path, "leave_out", at), words)

    def _demand_known(self, name: str, path: TreePath) -> None:
        from harness.scenario.model import Scenario
        from harness.scenario.problems import did_you_mean

        fields = tuple(Scenario.model_fields)
        words = (*SHORT_DIMENSIONS, *TOOL_DIMENSIONS)
        if name in words or name.split(".")[0] in fields:
            return
        self.wrong(
            path,
            f"no such dimension; {did_you_mean(name, (*words, *fields))}there are {', '.join(words)}, and "
            "the keys of a scenario, dotted, such as migration.multifd",
        )

    def _excludable(self, entry: SuiteEntry, at: int, path: TreePath) -> bool:
        known = ("scenario", *entry.matrix)
        wrong = [name for name in entry.exclude[at] if name not in known]
        for name in wrong:
            self.wrong((*path, name), f"this entry has no dimension {name!r}; it has {', '.join(known)}")
        return not wrong


def _text(value: object) -> str:
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _matches(words: Mapping[str, object], texts: Mapping[str, str]) -> bool:
    return all(texts.get(name) == _text(value) for name, value in words.items())
