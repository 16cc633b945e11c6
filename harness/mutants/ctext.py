# SPDX-License-Identifier: GPL-2.0-or-later
"""C text as far as a mutator needs it: what is code, and which lines are in which function.

No parser: QEMU's style puts a function's name, its opening and its closing brace at the beginning of a line.
What is not written so is not found, and so not mutated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_NOT_CODE: Final = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|^[ \t]*\#(?:\\\n|[^\n])*""",
    re.DOTALL | re.MULTILINE,
)
_HEAD: Final = re.compile(r"^(?!#)[A-Za-z_].*?\b([A-Za-z_]\w*)\(")


@dataclass(frozen=True, slots=True)
class CFunction:
    """One function's body.  ``first``, ``last``: indexes of the lines between its braces, from 0."""

    name: str
    first: int
    last: int


def code_only(text: str) -> str:
    """The same text, with spaces for comments, strings, characters and what the preprocessor reads.

    Every position stays what it was.
    """
    return _NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def functions_of(text: str) -> Iterator[CFunction]:
    """The functions that are defined in a file, in order."""
    lines = code_only(text).split("\n")
    name, opened = "", -1
    for number, line in enumerate(lines):
        if opened >= 0:
            if line.startswith("}"):
                if name:
                    yield CFunction(name, opened + 1, number - 1)
                name, opened = "", -1
            continue
        head = _HEAD.match(line)
        if head is not None:
            name = head[1]
        if line.rstrip() == "{":
            opened = number
        elif line.rstrip().endswith((";", "}")):
            name = ""
