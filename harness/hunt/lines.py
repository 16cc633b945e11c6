# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of QEMU's source were reached, by file and function, from what gcov says.  Pure.

    lines = SourceLines()
    lines.learn(document)          # what `gcov --json-format` says of one object; lines that are new
    lines.report(runs=7, without=0)

Of an object the lines of its own source file count.  Inline functions of headers do not: they are in many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FileLines:
    """A source file: lines with code, and those of them that some run has reached."""

    file: str
    lines: int
    reached: int


@dataclass(frozen=True, slots=True)
class MissedLines:
    """A function of which some line was reached by no run."""

    file: str
    function: str
    """Empty: lines that gcov counts to no function."""
    line: int
    """Its first line with code."""
    lines: int
    reached: int
    """0: no run has been in it."""
    missed: str
    """Which lines: ``120-131, 140``."""


@dataclass(frozen=True, slots=True)
class CodeReport:
    """How much of QEMU's code all runs together have reached."""

    runs: int
    """Whose counters were read, of all hunts in the folder with this QEMU."""
    without: int
    """Runs that left none that could be read: their QEMUs were killed, or never came up."""
    files: tuple[FileLines, ...]
    missed: tuple[MissedLines, ...]
    trouble: str = ""
    """Why counters could not be read, where some could not."""

    def parts(self) -> Mapping[str, FileLines]:
        """The same by the first folder: ``migration``, ``hw``."""
        found: dict[str, list[FileLines]] = defaultdict(list)
        for one in self.files:
            found[one.file.partition("/")[0]].append(one)
        return {
            name: FileLines(name, sum(one.lines for one in of), sum(one.reached for one in of))
            for name, of in found.items()
        }

    def never(self, part: str) -> tuple[MissedLines, ...]:
        """The functions of a part that no run has been in, of files of which some line was reached."""
        seen = {one.file for one in self.files if one.reached}
        return tuple(
            one
            for one in self.missed
            if one.function and one.file.startswith(f"{part}/") and not one.reached and one.file in seen
        )


@dataclass(slots=True)
class _File:
    functions: dict[int, str] = field(default_factory=dict)
    """By line."""
    reached: set[int] = field(default_factory=set)


class SourceLines:
    """The lines of source files, and which were reached."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def learn(self, document: Mapping[str, Any]) -> int:
        """Add what gcov says of an object; how many lines were reached that had not been before."""
        stem = PurePosixPath(str(document["data_file"])).stem
        new = 0
        for entry in document["files"]:
            name = own_file(str(entry["file"]), stem)
            if name is None:
                continue
            file = self._files.setdefault(name, _File())
            for line in entry["lines"]:
                number = int(line["line_number"])
                file.functions.setdefault(number, str(line.get("function_name", "")))
                if line["count"] and number not in file.reached:
                    file.reached.add(number)
                    new += 1
        return new

    def report(self, runs: int, without: int) -> CodeReport:
        """Files and functions in their order."""
        names = sorted(self._files)
        return CodeReport(
            runs,
            without,
            tuple(FileLines(name, len(file.functions), len(file.reached)) for name, file in self._of(names)),
            tuple(one for name, file in self._of(names) for one in _missed(name, file)),
        )

    def _of(self, names: Iterable[str]) -> Iterator[tuple[str, _File]]:
        return ((name, self._files[name]) for name in names)

    def document(self) -> dict[str, Any]:
        """All of it, to be read by :meth:`of`."""
        return {
            name: {
                "functions": {str(number): word for number, word in sorted(file.functions.items())},
                "reached": sorted(file.reached),
            }
            for name, file in self._of(sorted(self._files))
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From :meth:`document`.  Raises :class:`ValueError` for what is none."""
        found = cls()
        try:
            for name, file in document.items():
                functions = {int(number): str(word) for number, word in file["functions"].items()}
                found._files[name] = _File(functions, {int(number) for number in file["reached"]})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no lines of source files: {error}") from error
        return found


def own_file(path: str, stem: str) -> str | None:
    """A source file's path in its tree, if it is the one that an object was made of; else None.

    Meson names the object of ``migration/ram.c`` ``migration_ram.c``: by that it is known where the tree
    begins.
    """
    parts = PurePosixPath(path).parts
    for length in range(1, len(parts) + 1):
        if "_".join(parts[-length:]) == stem:
            return "/".join(parts[-length:])
    return None


def _missed(name: str, file: _File) -> Iterator[MissedLines]:
    functions: dict[str, list[int]] = defaultdict(list)
    for number, word in sorted(file.functions.items()):
        functions[word].append(number)
    for word, numbers in functions.items():
        reached = sum(number in file.reached for number in numbers)
        if reached < len(numbers):
            ranges = _ranges(numbers, file.reached)
            yield MissedLines(name, word, numbers[0], len(numbers), reached, ", ".join(ranges))


def _ranges(numbers: Iterable[int], reached: set[int]) -> Iterator[str]:
    """Lines that were not reached: those between which there is no other line with code are one range."""
    first = last = 0
    for number in [*numbers, 0]:
        if number and number not in reached:
            first, last = first or number, number
        elif first:
            yield str(first) if first == last else f"{first}-{last}"
            first = 0
