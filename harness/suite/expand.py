# SPDX-License-Identifier: GPL-2.0-or-later
"""From a suite's matrix to single runs, each with its scenario read and checked."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from harness.errors import InputError
from harness.nested.commands import demand_nestable
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.scenario.load import Override, Scenario, shipped_names
from harness.scenario.located import Path as TreePath
from harness.scenario.located import Problem, WrittenFloat, WrittenInt, dotted
from harness.scenario.moments import OF_A_REQUEST
from harness.scenario.problems import did_you_mean
from harness.suite.load import LoadedSuite
from harness.suite.model import (
    LONGEST_NESTED,
    LONGEST_RUN,
    SHORT_DIMENSIONS,
    TOOL_DIMENSIONS,
    SuiteEntry,
)
from harness.suite.needs import Resources, needs_of
from harness.toolchain.qemu_names import canonical

_ALL: Final = "all"
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


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of one dimension, and where it was written."""

    dimension: str
    value: object
    path: TreePath

    @property
    def text(self) -> str:
        return _text(self.value)


def _text(value: object) -> str:
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


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
        self._problems: list[str] = []
        self.left_out: list[str] = []

    def runs(self) -> list[tuple[SuiteRun, int]]:
        """Each run once, and how often it is to be made."""
        found: list[tuple[SuiteRun, int]] = []
        names: dict[str, str] = {}
        for number, entry in enumerate(self._loaded.suite.runs):
            repeat = entry.repeat if entry.repeat is not None else self._loaded.suite.repeat
            for run in self._of_entry(number, entry):
                if run.name in names:
                    self._wrong(
                        ("runs", number),
                        f"a run {run.name} is in {names[run.name]} already; give one of the two a label",
                    )
                    break
                names[run.name] = run.place
                found.append((run, repeat))
        if self._problems:
            raise InputError("\n".join(dict.fromkeys(self._problems)))
        return found

    def _wrong(self, path: TreePath, text: str) -> None:
        self._problems.append(str(Problem(self._loaded.tree.place(path), dotted(path), text)))

    def count(self) -> int:
        """How many runs there are, with repeats.  No scenario is read, so nothing that is wrong is found."""
        return sum(
            sum(1 for _ in self._chosen(number, entry))
            * (entry.repeat if entry.repeat is not None else self._loaded.suite.repeat)
            for number, entry in enumerate(self._loaded.suite.runs)
        )

    def _of_entry(self, number: int, entry: SuiteEntry) -> Iterator[SuiteRun]:
        fixed = [_Value(name, value, ("runs", number, "set", name)) for name, value in entry.set.items()]
        for scenario, chosen in self._chosen(number, entry):
            run = self._run(entry, scenario, fixed, chosen)
            if run is not None:
                yield run

    def _chosen(self, number: int, entry: SuiteEntry) -> Iterator[tuple[_Value, Sequence[_Value]]]:
        """Each scenario of an entry in each combination that is not excluded."""
        path: TreePath = ("runs", number)
        axes = [
            [_Value(name, value, (*path, "matrix", name, at)) for at, value in enumerate(values)]
            for name, values in entry.matrix.items()
            if self._known(name, (*path, "matrix", name))
        ]
        scenarios = self._scenarios(entry, path)
        unused = {
            at for at in range(len(entry.exclude)) if self._excludable(entry, at, (*path, "exclude", at))
        }
        for scenario, chosen in itertools.product(scenarios, itertools.product(*axes)):
            texts = {"scenario": scenario.text, **{value.dimension: value.text for value in chosen}}
            out = {at for at, words in enumerate(entry.exclude) if _matches(words, texts)}
            unused -= out
            if not out:
                yield scenario, chosen
        for at in sorted(unused):
            self._wrong((*path, "exclude", at), "nothing in this entry is so")

    def _known(self, name: str, path: TreePath) -> bool:
        fields = tuple(Scenario.model_fields)
        if name in SHORT_DIMENSIONS or name in TOOL_DIMENSIONS or name.split(".")[0] in fields:
            return True
        words = (*SHORT_DIMENSIONS, *TOOL_DIMENSIONS)
        self._wrong(
            path,
            f"no such dimension; {did_you_mean(name, (*words, *fields))}there are {', '.join(words)}, and "
            "the keys of a scenario, dotted, such as migration.multifd",
        )
        return False

    def _excludable(self, entry: SuiteEntry, at: int, path: TreePath) -> bool:
        known = ("scenario", *entry.matrix)
        wrong = [name for name in entry.exclude[at] if name not in known]
        for name in wrong:
            self._wrong((*path, name), f"this entry has no dimension {name!r}; it has {', '.join(known)}")
        return not wrong

    def _scenarios(self, entry: SuiteEntry, path: TreePath) -> list[_Value]:
        shipped = shipped_names()
        for at, name in enumerate(entry.leave_out):
            if name not in shipped:
                words = f"no such scenario: {name!r}; {did_you_mean(name, shipped)}".strip("; ")
                self._wrong((*path, "leave_out", at), words)
        found: list[_Value] = []
        for at, name in enumerate(entry.scenarios):
            here = (*path, "scenarios", at)
            if name == _ALL:
                found += [_Value("scenario", one, here) for one in shipped if one not in entry.leave_out]
            else:
                found.append(_Value("scenario", name, here))
        return found

    def _run(
        self, entry: SuiteEntry, named: _Value, fixed: Sequence[_Value], chosen: Sequence[_Value]
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
            self._problems.append(
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

    def _override(self, value: _Value) -> Override | None:
        if value.dimension in TOOL_DIMENSIONS:
            return None
        key = SHORT_DIMENSIONS.get(value.dimension, value.dimension)
        parts = tuple(part.strip() for part in key.split("."))
        if not all(parts):
            raise InputError(f"{value.dimension!r} is no key of a scenario")
        return Override(parts, value.value, str(self._loaded.tree.place(value.path)))

    def _tools(self, chosen: Sequence[_Value]) -> Tools:
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


def _nested(chosen: Sequence[_Value]) -> bool:
    return any(value.dimension == "nested" and value.value is True for value in chosen)


def _matches(words: Mapping[str, object], texts: Mapping[str, str]) -> bool:
    return all(texts.get(name) == _text(value) for name, value in words.items())


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
