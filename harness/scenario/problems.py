# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a scenario, in words: pydantic's errors, each with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Final, TypeAlias, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.scenario import located
from harness.scenario.devices import DEVICES
from harness.scenario.located import LocatedTree, Problem, dotted
from harness.scenario.model import Scenario
from harness.scenario.registry import OneOf

#: Keys are short: with less in common than this, one of them is no misspelling of the other.
_KEYS_ALIKE: Final = 0.75


def did_you_mean(word: str, known: Iterable[str], alike: float = 0.6) -> str:
    """A suggestion with a blank behind it, or nothing; ``alike``: from 0 to 1, how close it has to be."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=alike)
    return f"did you mean {close[0]!r}? " if close else ""


@dataclass(frozen=True, slots=True)
class _Keys:
    """The model whose keys belong at one place of the file; ``named`` is what chose it there."""

    model: type[BaseModel]
    named: str = ""


_Places: TypeAlias = Iterator[tuple[located.Path, _Keys]]


def _keys_of(model: type[BaseModel], value: object, path: located.Path) -> _Places:
    """Which keys exist where, for suggestions: in this model, and in all that is inside of it."""
    inside = value if isinstance(value, Mapping) else {}
    for name, field in model.model_fields.items():
        here = (*path, name)
        yield from _keys_in(field.annotation, tuple(field.metadata), inside.get(name), here)


def _keys_in(annotation: object, metadata: tuple[object, ...], value: object, path: located.Path) -> _Places:
    for registry in (entry.registry for entry in metadata if isinstance(entry, OneOf)):
        kind = registry.chosen_by(value)
        if kind is not None:
            word = value.get(registry.key) if isinstance(value, Mapping) else None
            yield path, _Keys(kind, f" of {registry.noun} {word!r}")
            yield from _keys_of(kind, value, path)
        return
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _keys_in(inner[0], inner[1:], value, path)
    elif origin is tuple:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from _keys_in(inner[0], (), item, (*path, index))
    elif origin in (Union, UnionType):
        for one in inner:
            yield from _keys_in(one, (), value, path)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, _Keys(annotation)
        yield from _keys_of(annotation, value, path)


def _unknown_key(path: located.Path, tree: LocatedTree, model: type[BaseModel]) -> str:
    keys = {(): _Keys(model), **dict(_keys_of(model, tree.data, ()))}
    key, here = str(path[-1]), keys.get(path[:-1])
    known = list(here.model.model_fields) if here else []
    elsewhere = [(*where, key) for where, there in keys.items() if key in there.model.model_fields]
    advice = (
        f"did you mean {dotted(elsewhere[0])!r}? " if elsewhere else did_you_mean(key, known, _KEYS_ALIKE)
    )
    out = _way_out(key) if path[:-1] == ("guest",) and not advice else ""
    return f"unknown key; {advice}the keys{here.named if here else ''} here are {', '.join(known)}{out}"


def _way_out(key: str) -> str:
    """What can be written down all the same, though no key of the guest's says it."""
    device = f"a device is one of guest.devices: [{{device: {key}}}]; " if key in tuple(DEVICES) else ""
    return f"; {device}what no key says goes by xml, qemu_args or globals (docs/machine.md)"


def _literal(value: object, expected: str) -> str:
    words = expected.replace(" or ", ", ").replace("'", "").split(", ")
    advice = did_you_mean(value, words).strip() if isinstance(value, str) else ""
    return f"expected {expected}, got {value!r}" + (f"; {advice}" if advice else "")


def problem_of(detail: ErrorDetails, tree: LocatedTree, model: type[BaseModel] = Scenario) -> Problem:
    """One of pydantic's errors about a file of that model in our words, with its place."""
    context: Mapping[str, object] = detail.get("ctx", {})
    path = detail["loc"]
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            text = _unknown_key(path, tree, model)
        case "missing":
            text = "missing"
            if path == ("name",):
                text = "missing; expected a name of small letters, digits and dashes"
        case "literal_error":
            # In the words of YAML.
            expected = str(context["expected"]).replace("True", "true").replace("False", "false")
            text = _literal(given, expected)
        case "unknown-kind":
            path = (*path, str(context["key"]))
            text = _literal(tree.value(path), ", ".join(map(repr, cast("tuple[str, ...]", context["known"]))))
        case "int_type" | "int_from_float":
            text = f"expected a whole number, got {given!r}"
        case "float_type":
            text = f"expected a number, got {given!r}"
        case "bool_type":
            text = f"expected true or false, got {given!r}"
        case "string_type":
            text = f"expected text, got {given!r}"
        case "string_too_short":
            text = "expected text, got nothing"
        case "too_short":
            text = (
                "expected text, got nothing" if isinstance(given, str) else "expected at least one, got none"
            )
        case "too_long":
            text = f"expected at most {context['max_length']}"
        case "tuple_type":
            text = f"expected a list, got {given!r}"
        case "string_pattern_mismatch":
            text = f"expected small letters, digits and dashes (at most 40), got {given!r}"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = f"expected keys of its own, got {given!r}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            limit = next(iter(context.values()))
            words = {"greater_than": "more than", "less_than": "less than"}
            at = {"greater_than_equal": "at least", "less_than_equal": "at most"}
            text = f"expected {(words | at)[detail['type']]} {limit}, got {given!r}"
        case "value_error":
            text = str(context["error"])
        case "at" | "in-entry":
            found = context["path"]
            inside = path if detail["type"] == "in-entry" else ()
            path = (*inside, *found) if isinstance(found, tuple) else ()
            text = detail["msg"]
        case _:
            text = f"{detail['msg']}, got {given!r}"
    return Problem(tree.place(path), dotted(path), text)
