# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's answer to a command, or the data of its event, must hold.

A scenario says it by dotted paths, each with what must be there::

    {status: active, ram.remaining: {min: 1}, vcpu.0.stats: {has: halt}, error-desc: {absent: true}}

A number in a path is a place in a list, from 0; a name that a mapping does not have is no error but absent;
the path ``.`` is all of it (what HMP says is one text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeGuard

from pydantic import AfterValidator, Field

#: What may stand in place of a value.
_DEMANDS: Final = frozenset({"min", "max", "has", "lacks", "matches", "not", "absent"})
#: The path of the answer itself.
_WHOLE: Final = "."
#: Of what QEMU said, so much is shown.
_SHOWN: Final = 300


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT: Final = _Absent()


def _demand(wanted: object) -> Mapping[str, object] | None:
    """A demand that is not for one value; None: it is for one."""
    if isinstance(wanted, Mapping) and wanted and _DEMANDS.issuperset(wanted):
        return wanted
    return None


def _checked(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raise ValueError for a demand that nothing could meet by its type."""
    for path, one in wanted.items():
        demand = _demand(one)
        if demand is None:
            continue
        for word in ("min", "max"):
            if word in demand and not _is_number(demand[word]):
                raise ValueError(f"{path}: expected a number for {word}, got {demand[word]!r}")
        for word in ("has", "lacks", "matches"):
            if word in demand and not isinstance(demand[word], str):
                raise ValueError(f"{path}: expected text for {word}, got {demand[word]!r}")
        try:
            re.compile(str(demand.get("matches", "")))
        except re.error as error:
            raise ValueError(f"{path}: no regular expression: {demand['matches']!r}: {error}") from None
        if not isinstance(demand.get("absent", True), bool):
            raise ValueError(f"{path}: expected true or false for absent, got {demand['absent']!r}")
    return wanted


Wanted: TypeAlias = Annotated[
    dict[Annotated[str, Field(pattern=r"^(\.|[^.\s]+(\.[^.\s]+)*)$")], Any], AfterValidator(_checked)
]


def unmet(answer: object, wanted: Mapping[str, object]) -> str | None:
    """The first demand that an answer does not meet, in words; None: it meets all."""
    for path, demand in wanted.items():
        found = answer if path == _WHOLE else _at(answer, path.split("."))
        text = _misses(found, demand)
        if text is not None:
            return f"{'' if path == _WHOLE else f'{path}: '}expected {text}, got {_as_json(found)}"
    return None


def _as_json(value: object) -> str:
    """A value as JSON has it, cut off where it is long."""
    if isinstance(value, _Absent):
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _at(value: object, path: Sequence[str]) -> object:
    for name in path:
        if isinstance(value, Mapping):
            value = value.get(name, _ABSENT)
        elif isinstance(value, list) and name.isascii() and name.isdigit():
            value = value[int(name)] if int(name) < len(value) else _ABSENT
        else:
            return _ABSENT
    return value


def _misses(found: object, wanted: object) -> str | None:
    demand = _demand(wanted)
    if demand is None:
        return None if _equal(found, wanted) else _as_json(wanted)
    if "absent" in demand:
        absent = isinstance(found, _Absent)
        if absent != demand["absent"]:
            return "nothing" if demand["absent"] else "something"
    if "not" in demand and _equal(found, demand["not"]):
        return f"anything but {_as_json(demand['not'])}"
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
    if "has" in demand and (isinstance(found, _Absent) or str(demand["has"]) not in text):
        return f"{_as_json(demand['has'])} in it"
    if "matches" in demand and (isinstance(found, _Absent) or not re.search(str(demand["matches"]), text)):
        return f"what {_as_json(demand['matches'])} matches"
    if "lacks" in demand and str(demand["lacks"]) in text:
        return f"no {_as_json(demand['lacks'])} in it"
    least, most = demand.get("min"), demand.get("max")
    if least is not None and not (_is_number(found) and found >= least):  # type: ignore[operator]
        return f"at least {least}"
    if most is not None and not (_is_number(found) and found <= most):  # type: ignore[operator]
        return f"at most {most}"
    return None


def _equal(found: object, wanted: object) -> bool:
    """Without Python's idea that true is 1."""
    if isinstance(found, bool) is not isinstance(wanted, bool):
        return False
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(name in found and _equal(found[name], value) for name, value in wanted.items())
    return bool(found == wanted)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
