# SPDX-License-Identifier: GPL-2.0-or-later
"""All mutants of named functions, and which of them are taken.  Pure."""

from __future__ import annotations

import difflib
import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.mutants.ctext import code_only, functions_of
from harness.mutants.operators import changed_lines


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line of QEMU that is wrong.

    ``line``: its number in the file, from 1.  ``before``, ``after``: the line, without what it begins with.
    """

    id: str
    file: str
    function: str
    line: int
    operator: str
    before: str
    after: str

    @property
    def where(self) -> str:
        """File, line and function, for people."""
        return f"{self.file}:{self.line} {self.function}()"

    def apply(self, text: str) -> str:
        """The file's text with the mutant in it.  Raises :class:`ValueError` for another text."""
        lines = text.split("\n")
        old = lines[self.line - 1] if self.line <= len(lines) else ""
        if old.strip() != self.before:
            raise ValueError(f"{self.where}: the line is another one: {old.strip()}")
        lines[self.line - 1] = old[: len(old) - len(old.lstrip())] + self.after
        return "\n".join(lines)

    def patch(self, text: str) -> str:
        """The mutant as a patch (-p1) of the file whose text this is."""
        old, new = (f"{kind}/{self.file}" for kind in "ab")
        before = text.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, self.apply(text).splitlines(keepends=True), old, new))


def mutants_of(file: str, text: str, wanted: Sequence[str]) -> Iterator[Mutant]:
    """Every mutant of the functions that are wanted (names, or patterns such as ``multifd_*``)."""
    lines, code = text.split("\n"), code_only(text).split("\n")
    for function in functions_of(text):
        if not any(fnmatchcase(function.name, pattern) for pattern in wanted):
            continue
        seen: Counter[str] = Counter()
        for number in range(function.first, function.last + 1):
            line = lines[number]
            seen[line.strip()] += 1
            for operator, other in changed_lines(line, code[number]):
                # Not the number of the line: a mutant is the same when something above it has changed.
                parts = (file, function.name, line.strip(), str(seen[line.strip()]), operator, other.strip())
                name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
                yield Mutant(
                    f"m{name}", file, function.name, number + 1, operator, line.strip(), other.strip()
                )


def draw_mutants(all_of_them: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """So many mutants, no two of one line; of the same seed, the first of more are the same.

    A function is drawn first, then one of its mutants: else most would be of a few long ones.
    """
    chance = random.Random(seed)
    left: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in sorted(all_of_them, key=lambda one: one.id):
        left.setdefault((mutant.file, mutant.function), []).append(mutant)
    found: list[Mutant] = []
    while left and len(found) < count:
        place = chance.choice(sorted(left))
        taken = chance.choice(left[place])
        found.append(taken)
        left[place] = [one for one in left[place] if one.line != taken.line]
        if not left[place]:
            del left[place]
    return found


def narrowed(named: Mapping[str, Sequence[str]], patterns: Sequence[str]) -> dict[str, list[str]]:
    """Of the named functions by file those that a pattern is about.

    ``multifd_*``: names; ``migration/ram.c``: all of that file; ``migration/ram.c:ram_save_*``: both, and
    these need not be named.
    """
    if not patterns:
        return {file: list(names) for file, names in named.items()}
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        file, colon, name = pattern.partition(":")
        if colon:
            found.setdefault(file, []).append(name)
            continue
        for known, names in named.items():
            if fnmatchcase(known, pattern):
                found.setdefault(known, []).extend(names)
            else:
                kept = [one for one in names if fnmatchcase(one, pattern)]
                if kept:
                    found.setdefault(known, []).extend(kept)
    return found
