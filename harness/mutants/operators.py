# SPDX-License-Identifier: GPL-2.0-or-later
"""How one line of C can be wrong: each operator makes other lines of it.  Pure.

An operator looks at the line without its comments and strings; what it changes it changes in the line itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

#: From a line's code (harness/mutants/ctext.py) to what is to be put where: (begin, end, text).
Edits: TypeAlias = Iterator[tuple[int, int, str]]

#: Calls that change nothing of what is moved: what they say, or that they look.
_SAYS_ONLY: Final = re.compile(r"^(?:trace_|error_report|warn_report|info_report|xen_)")
#: One that is wrong ends QEMU at once, and one that is missing nobody notices.
_ASSERTION: Final = re.compile(r"^\s*(?:g_)?assert(?:_\w+)?\s*\(")
_STATEMENT: Final = re.compile(r"^\s*([A-Za-z_]\w*)\s*\(.*\)\s*;\s*$")
_ASSIGNMENT: Final = re.compile(
    r"^\s*[A-Za-z_][\w.\[\]]*(?:->[\w.\[\]]+)*\s*(?:[-+|&^]|<<|>>)?=(?!=)\s*[^;]*;\s*$"
)
_STEP: Final = re.compile(r"^\s*[A-Za-z_][\w.\[\]]*(?:->[\w.\[\]]+)*(?:\+\+|--);\s*$")
_NUMBER: Final = re.compile(r"(?<![\w.])(\d+)(?![\w.])")
_OTHER: Final[Mapping[str, str]] = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "&&": "||",
    "||": "&&",
    "+": "-",
    "-": "+",
    "<<": ">>",
    ">>": "<<",
    "|=": "=",
    "+=": "=",
    "-=": "+=",
    "&": "|",
    "|": "&",
}


def _between_spaces(line: str, words: str) -> Edits:
    """Operators with a space on either side, as QEMU's style has them."""
    for found in re.finditer(rf"(?<=\s)(?:{words})(?=\s)", line):
        yield found.start(), found.end(), _OTHER[found[0]]


def _condition_negated(line: str) -> Edits:
    found = re.search(r"\bif \(", line)
    if found is None:
        return
    depth = 1
    for at in range(found.end(), len(line)):
        depth += {"(": 1, ")": -1}.get(line[at], 0)
        if depth == 0:
            yield at, at, ")"
            yield found.end(), found.end(), "!("
            return


def _boundary_moved(line: str) -> Edits:
    return _between_spaces(line, "<=|>=|<|>")


def _comparison_turned(line: str) -> Edits:
    return _between_spaces(line, "==|!=")


def _connective_changed(line: str) -> Edits:
    return _between_spaces(line, r"&&|\|\|")


def _arithmetic_changed(line: str) -> Edits:
    # A pointer's star or a sign has no space behind it.
    return _between_spaces(line, r"\+|-|<<|>>|\|=|\+=|-=|&|\|")


def _constant_changed(line: str) -> Edits:
    if re.match(r"^\s*case\b", line):
        return
    for found in _NUMBER.finditer(line):
        yield found.start(), found.end(), str(int(found[0]) + 1)


def _call_removed(line: str) -> Edits:
    found = _STATEMENT.match(line)
    if found is not None and not _SAYS_ONLY.match(found[1]) and found[1] not in ("return", "if", "while"):
        yield found.start(1), len(line.rstrip()), ";"


def _assignment_removed(line: str) -> Edits:
    if _ASSIGNMENT.match(line) or _STEP.match(line):
        yield len(line) - len(line.lstrip()), len(line.rstrip()), ";"


def _return_changed(line: str) -> Edits:
    for was, now in (("true", "false"), ("false", "true"), ("0", "-1"), ("-1", "0"), ("1", "0")):
        found = re.match(rf"^\s*return {was};\s*$", line)
        if found is not None:
            at = line.index("return ") + len("return ")
            yield at, at + len(was), now


def _loop_left(line: str) -> Edits:
    for was, now in (("continue", "break"), ("break", "continue")):
        found = re.match(rf"^\s*({was});\s*$", line)
        if found is not None:
            yield found.start(1), found.end(1), now


#: Whose edits of one line belong together; those of the others are one mutant each.
_WHOLE: Final = frozenset({"condition-negated"})
OPERATORS: Final[Mapping[str, Callable[[str], Edits]]] = {
    "condition-negated": _condition_negated,
    "boundary-moved": _boundary_moved,
    "comparison-turned": _comparison_turned,
    "connective-changed": _connective_changed,
    "arithmetic-changed": _arithmetic_changed,
    "constant-changed": _constant_changed,
    "call-removed": _call_removed,
    "assignment-removed": _assignment_removed,
    "return-changed": _return_changed,
    "loop-left": _loop_left,
}


def changed_lines(line: str, code: str) -> Iterator[tuple[str, str]]:
    """All that the operators make of a line: (operator, the other line).

    ``code``: the line without its comments and strings, at the same positions.
    """
    if _ASSERTION.match(code):
        return
    for name, operator in OPERATORS.items():
        edits = list(operator(code))
        groups = [edits] if name in _WHOLE and edits else [[edit] for edit in edits]
        for group in groups:
            other = line
            for begin, end, text in group:
                other = other[:begin] + text + other[end:]
            if other != line:
                yield name, other
