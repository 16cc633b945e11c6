# SPDX-License-Identifier: GPL-2.0-or-later
"""From a suite's matrix to single runs, each with its scenario read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from harness.errors import InputError
from harness.nested.commands import demand_nestable
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.scenario.load import Override, Scenario
from harness.scenario.located import Problem, dotted
from harness.scenario.moments import OF_A_REQUEST
from harness.suite.load import LoadedSuite
from harness.suite.matrix import Matrix, MatrixValue
from harness.suite.model import (
    LONGEST_NESTED,
    LONGEST_RUN,
    SHORT_DIMENSIONS,
    TOOL_DIMENSIONS,
    SuiteEntry,
)
from harness.suite.needs import Resources, needs_of
from harness.toolchain.qemu_names import canonical

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """One run that is to be made.

    ``place``: where the file asks for it, for errors.  ``timeout``: seconds.
    """

    name: str
    scenario: Scenario = field(compare=False, hash=False, repr=False)
    tools: Tools = field(compare=False, hash=False, repr=False)
    needs: Resources = field(compare=False, hash=False, repr=False)
    nested: bool = False
    dimensions: Mapping[str, str] = field(default_factory=dict, compare=False, hash=False)
    repeat: int = 1
    timeout: float = LONGEST_RUN
    optional: bool = False
    place: str = ""
    #: Its seed is the suite's choice, and not the scenario's.
    drawn: bool = field(default=False, compare=False, hash=False)

    def again(self, repeat: int, seed: int | None) -> SuiteRun:
        """The same as its ``repeat``th repeat; ``seed``: unless the scenario has its own."""
        scenario, drawn = self.scenario, self.drawn
        if seed is not None and (drawn or scenario.seed is None):
            scenario, drawn = scenario.model_copy(update={"seed": seed}), True
        name = self.name if repeat == 1 else f"{self.name}#{repeat}"
        return replace(self, name=name, scenario=scenario, repeat=repeat, drawn=drawn)


def seed_of(base: int, scenario: str, repeat: int) -> int:
    """The seed of a run: one for a scenario in all dimensions, so that those alone make a difference."""
    digest = hashlib.blake2b(f"{base}/{scenario}/{repeat}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True)
class GivenQemu:
    """A QEMU for all runs that name none, by its canonical name.

    ``plain``: it has no free page info that could be proven, so what has arm info runs in arm off.
    """

    name: str
    plain: bool


class Expansion:
    """The runs of one suite; every problem that there is in one :class:`InputError`.

    With a ``qemu`` that is plain, :attr:`left_out` names what is about requests, of which it has none.
    """

    def __init__(self, loaded: LoadedSuite, qemu: GivenQemu | None = None) -> None:
        self._loaded = loaded
        self._qemu = qemu
        self._matrix = Matrix(loaded)
        self.left_out: list[str] = []

    def runs(self) -> list[tuple[SuiteRun, int]]:
        """Each run once, and how often it is to be made."""
        found: list[tuple[SuiteRun, int]] = []
        names: dict[str, str] = {}
        for number, entry in enumerate(self._loaded.suite.runs):
            repeat = entry.repeat if entry.repeat is not None else self._loaded.suite.repeat
            for run in self._of_entry(number, entry):
                if run.name in names:
                    self._matrix.wrong(
                        ("runs", number),
                        f"a run {run.name} is in {names[run.name]} already; give one of the two a label",
                    )
                    break
                names[run.name] = run.place
                found.append((run, repeat))
        if self._matrix.problems:
            raise InputError("\n".join(dict.fromkeys(self._matrix.problems)))
        return found

    def _of_entry(self, number: int, entry: SuiteEntry) -> Iterator[SuiteRun]:
        fixed = [MatrixValue(name, value, ("runs", number, "set", name)) for name, value in entry.set.items()]
        for scenario, chosen in self._matrix.chosen(number, entry):
            run = self._run(entry, scenario, fixed, chosen)
            if run is not None:
                yield run

    def _run(
        self,
        entry: SuiteEntry,
        named: MatrixValue,
        fixed: Sequence[MatrixValue],
        chosen: Sequence[MatrixValue],
    ) -> SuiteRun | None:
        place = str(self._loaded.tree.place(named.path))
        try:
            tools, nested = self._tools(chosen), _nested(chosen)
            changes = [self._override(value) for value in (*fixed, *chosen)]
            given = [change for change in changes if change is not None]
            scenario, tools = load_with_tools(self._file(named.text), given, tools)
            if scenario.arm == "info" and self._qemu is not None and self._qemu.plain:
                if any(entry.at in OF_A_REQUEST for entry in scenario.script):
                    self.left_out.append(scenario.name)
                    return None
                off = Override(("arm",), "off", place)
                scenario, tools = load_with_tools(self._file(named.text), [*given, off], tools)
            if nested:
                demand_nestable(scenario)
        except InputError as error:
            # A problem of a file has its place already; one of a name has not.
            self._matrix.problems.append(
                error.message if _placed(error.message, self._loaded) else f"{place}: {error.render()}"
            )
            return None
        longest = LONGEST_NESTED if nested else LONGEST_RUN
        timeout = entry.timeout or self._loaded.suite.timeout or longest
        labels = [entry.label] if entry.label else []
        words = [*labels, *(f"{value.dimension}={value.text}" for value in chosen)]
        return SuiteRun(
            scenario.name + (f"[{','.join(words)}]" if words else ""),
            scenario,
            tools,
            needs_of(scenario, nested=nested),
            nested,
            {value.dimension: value.text for value in chosen},
            timeout=float(timeout),
            optional=entry.optional or self._qemu is not None,
            place=place,
        )

    def _file(self, name: str) -> str:
        if "/" in name or name.endswith((".yaml", ".yml")):
            return str(self._loaded.folder / Path(name))
        return name

    def _override(self, value: MatrixValue) -> Override | None:
        if value.dimension in TOOL_DIMENSIONS:
            return None
        key = SHORT_DIMENSIONS.get(value.dimension, value.dimension)
        parts = tuple(part.strip() for part in key.split("."))
        if not all(parts):
            raise InputError(f"{value.dimension!r} is no key of a scenario")
        return Override(parts, value.value, str(self._loaded.tree.place(value.path)))

    def _tools(self, chosen: Sequence[MatrixValue]) -> Tools:
        named: dict[str, str] = {}
        for value in chosen:
            if value.dimension in TOOL_DIMENSIONS and value.dimension != "nested":
                try:
                    named[value.dimension] = canonical(value.text)
                except InputError as error:
                    problem = Problem(self._loaded.tree.place(value.path), dotted(value.path), error.message)
                    raise InputError(str(problem)) from error
            if value.dimension == "nested" and not isinstance(value.value, bool):
                problem = Problem(
                    self._loaded.tree.place(value.path),
                    dotted(value.path),
                    f"expected true or false, got {value.value!r}",
                )
                raise InputError(str(problem))
        both = named.get("qemu", self._qemu.name if self._qemu is not None else None)
        return Tools(
            source_qemu=named.get("source_qemu", both), destination_qemu=named.get("destination_qemu", both)
        )


def _nested(chosen: Sequence[MatrixValue]) -> bool:
    return any(value.dimension == "nested" and value.value is True for value in chosen)


def _placed(message: str, loaded: LoadedSuite) -> bool:
    return message.startswith(f"{loaded.tree.source}:")


def repeated(runs: Sequence[tuple[SuiteRun, int]], seed: int, times: int | None = None) -> list[SuiteRun]:
    """Every run as often as it is to be made, interleaved: each once, then each again.

    ``times``: in place of what the suite says.  ``seed``: of the suite, from which those of the runs come.
    """
    most = times or max((repeat for _, repeat in runs), default=0)
    return [
        run.again(number, seed_of(seed, run.scenario.name, number))
        for number in range(1, most + 1)
        for run, repeat in runs
        if number <= (times or repeat)
    ]


def further_rounds(
    runs: Sequence[SuiteRun], seed: int | None, most: int | None = None
) -> Iterator[list[SuiteRun]]:
    """The runs again and again, after each was made once, with other seeds each time.

    ``seed``: of the suite; None: each run draws its own.  ``most``: rounds in all, with the first.
    """
    number = max((run.repeat for run in runs), default=0)
    while most is None or number < most:
        number += 1
        yield [
            run.again(number, None if seed is None else seed_of(seed, run.scenario.name, number))
            for run in runs
            if run.repeat == 1
        ]


def shard_of(items: Sequence[_Item], number: int, of: int) -> list[_Item]:
    """Part ``number`` of ``of`` equal ones, from 1; each item is in exactly one."""
    return list(items[number - 1 :: of])
