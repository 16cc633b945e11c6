# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of docs/scenario.md, made of the classes that a scenario is validated by.

    python -m harness.scenario.document docs/scenario.md           # writes them anew
    python -m harness.scenario.document --check docs/scenario.md   # exit code 1 if one would change

A table stands between two lines, and only what is between them is replaced::

    <!-- generated: guest -->
    <!-- end -->

Its name is the dotted key of the section.  A section has one row for each key; a key that chooses among
registered classes has one row for each class, and below it one for each of its keys.  The words are the
classes' docstrings, so they stand in the JSON Schema as well.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.errors import InputError
from harness.scenario.load import scenario_schema
from harness.scenario.model import Scenario
from harness.scenario.moments import MOMENTS
from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Section
from harness.units import PERCENT_PATTERN, RATE_PATTERN, SIZE_PATTERN

#: The name of the table of top-level keys.
TOP: Final = "top level"
#: The name of the table of moments, which are words and not keys.
MOMENTS_TABLE: Final = "script.at"

_BEGIN: Final = re.compile(r"<!-- generated: (.+) -->")
_END: Final = "<!-- end -->"
#: What a pattern of the JSON Schema stands for.
_PATTERNS: Final = {SIZE_PATTERN: "a size", RATE_PATTERN: "a rate", PERCENT_PATTERN: "a share"}
#: More words than these are left to a table of their own.
_MOST_WORDS: Final = 8
_DOCUMENT: Final = re.compile(r"\bdocs/([\w-]+\.md)")

_Schema: TypeAlias = Mapping[str, Any]
_Chooser: TypeAlias = Registry[Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """A section of the file, or a choice among classes: what one table is about."""

    name: str
    content: type[Section] | _Chooser


def tables() -> dict[str, str]:
    """Every table by its name."""
    schemas: _Schema = scenario_schema()
    schema_of = {Scenario.__name__: schemas, **schemas["$defs"]}
    found = {place.name: _table(place, schema_of) for place in _places()}
    found[MOMENTS_TABLE] = _lines(("`at`", "meaning"), [(_code(at), text) for at, text in MOMENTS.items()])
    return found


def refreshed(text: str) -> str:
    """A document with every table made anew.

    Raises :class:`InputError` if a table has no place in it, or a place no table.
    """
    wanted, written = tables(), set()
    result: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        result.append(line)
        begin = _BEGIN.fullmatch(line)
        if begin is None:
            continue
        name = begin[1]
        if name not in wanted:
            raise InputError(f"there is no table {name!r}; there are {', '.join(wanted)}")
        end = next((old for old in lines if old == _END or _BEGIN.fullmatch(old)), None)
        if end != _END:
            raise InputError(f"the table {name!r} has no end; expected a line {_END}")
        written.add(name)
        result += ["", wanted[name], "", _END]
    missing = [name for name in wanted if name not in written]
    if missing:
        lines_wanted = "; ".join(f"<!-- generated: {name} -->" for name in missing)
        raise InputError(f"the document has no place for: {lines_wanted}")
    return "\n".join(result) + "\n"


def _places() -> Iterator[_Place]:
    """All sections, each once, in the order of the keys."""
    yield _Place(TOP, Scenario)
    seen: set[int] = set()
    for place in _below(Scenario, ""):
        if id(place.content) not in seen:
            seen.add(id(place.content))
            yield place


def _below(model: type[BaseModel], name: str) -> Iterator[_Place]:
    for key, field in model.model_fields.items():
        here = f"{name}.{key}" if name else key
        yield from _inside(field.annotation, tuple(field.metadata), here)


def _inside(annotation: object, metadata: Sequence[object], name: str) -> Iterator[_Place]:
    chooser = _chooser(metadata)
    origin, inner = get_origin(annotation), get_args(annotation)
    if chooser is not None:
        yield _Place(name, chooser)
    elif origin is Annotated:
        yield from _inside(inner[0], inner[1:], name)
    elif origin in (tuple, Union, UnionType):
        for one in inner:
            yield from _inside(one, (), name)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield _Place(name, annotation)
        yield from _below(annotation, name)


def _chooser(metadata: Sequence[object]) -> _Chooser | None:
    return next((entry.registry for entry in metadata if isinstance(entry, OneOf)), None)


def _table(place: _Place, schemas: _Schema) -> str:
    content = place.content
    if not isinstance(content, Registry):
        return _lines(("key", "values", "default", "meaning"), _keys(content, schemas))
    rows: list[tuple[str, ...]] = []
    for word, kind in content.items():
        notes = [_words(kind.__doc__), *kind.doc_notes()]
        rows.append((_code(word), "", "", "", " ".join(notes)))
        rows += [("", *row) for row in _keys(kind, schemas, but=content.key)]
    return _lines((_code(content.key), "key", "values", "default", "meaning"), rows)


def _keys(model: type[BaseModel], schemas: _Schema, but: str = "") -> list[tuple[str, ...]]:
    """A row for each key of a section: the key, what it may be, its default, its meaning."""
    properties = schemas[model.__name__]["properties"]
    return [
        (_code(key), _values(properties[key]), _default(field, properties[key]), _words(field.description))
        for key, field in model.model_fields.items()
        if key != but
    ]


def _default(field: FieldInfo, schema: _Schema) -> str:
    """A default as a file has it; nothing for a key that must be given, or that has keys of its own."""
    value = field.default
    chooser = _chooser(field.metadata)
    if field.is_required() or isinstance(value, BaseModel):
        return _code(str(getattr(value, chooser.key))) if chooser is not None else ""
    if isinstance(value, tuple):
        return f"{len(value)} of them" if len(value) > 1 else "one" if value else "none"
    if value == "":
        return "empty"
    return _yaml(schema["default"])


def _yaml(value: object) -> str:
    """A plain value, as YAML writes it."""
    if value is None:
        return "`null`"
    return _code(str(value).lower() if isinstance(value, bool) else str(value))


def _values(schema: _Schema) -> str:
    """What a key may be, in a few words."""
    if "anyOf" in schema and "pattern" in str(schema["anyOf"]) and schema.get("type") == "string":
        return " or ".join(_PATTERNS[one["pattern"]] for one in schema["anyOf"])
    if "anyOf" in schema:
        return ", ".join(dict.fromkeys(_values(one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        words = schema.get("enum", [schema.get("const")])
        return ", ".join(map(_yaml, words)) if len(words) <= _MOST_WORDS else "see below"
    match schema.get("type"):
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"names, each with {_values(schema['additionalProperties'])}"
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            return _range(schema)
        case "string":
            return _PATTERNS.get(schema.get("pattern", ""), "text")
        case "array":
            inner = _values(schema["items"])
            return "a list, see below" if inner == "see below" else f"a list: {inner}"
    return "see below"


def _range(schema: _Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    what = "a whole number" if schema["type"] == "integer" else "a number"
    if least is not None and most is not None:
        return f"{least:g} to {most:g}" if most < 10**6 else f"{least} to {most}"
    lower = f" from {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
    upper = f" to {most:g}" if most is not None else f" below {below}" if below is not None else ""
    return what + lower + upper


def _words(text: str | None) -> str:
    """A docstring in one line, with links to the documents that it names."""
    return _DOCUMENT.sub(r"[\1](\1)", " ".join((text or "").replace("``", "`").split()))


def _code(text: str) -> str:
    return f"`{text}`"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables of a document anew, or say whether they are as they would be."""
    parser = argparse.ArgumentParser(prog="python -m harness.scenario.document", description=main.__doc__)
    parser.add_argument("file", type=Path, help="such as docs/scenario.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if it would change")
    options = parser.parse_args(arguments)
    text = options.file.read_text("utf-8")
    try:
        new = refreshed(text)
    except InputError as error:
        sys.stderr.write(f"{options.file}: {error}\n")
        return 2
    if options.check:
        return int(new != text)
    options.file.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
