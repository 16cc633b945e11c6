# SPDX-License-Identifier: GPL-2.0-or-later
"""YAML with places: every value knows where it was written.

A small part of YAML, read strictly: mappings, lists and scalars of one
document.  Refused, because in a file that people edit by hand each is more
often a mistake than a wish: duplicate keys, aliases and merges, tags, several
documents.  ``yes``, ``no``, ``on`` and ``off`` are words, as in YAML 1.2: with
YAML 1.1's rule ``arm: off`` would be ``arm: False``.

Overrides (``--set key=value``) are merged into the same tree, so that they are
validated by the same code and their errors name the override.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import yaml

#: Where in the tree: ("guest", "memory").
Path: TypeAlias = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")

#: A scenario is a page of text. Anything larger is the wrong file.
LARGEST_FILE = 1 << 20
#: Nor is it a tree of this depth.
DEEPEST = 16


class WrittenInt(int):
    """A whole number that remembers how it was written, for keys that want text."""

    text: str


class WrittenFloat(float):
    """A number that remembers how it was written: ``kernel: 6.10`` is not 6.1."""

    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a place in a file, or an override."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.source
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the input, and where."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key + ': ' if self.key else ''}{self.text}"


class LocatedError(Exception):
    """The text could not be read; carries what is wrong with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Override:
    """``key=value`` on the command line; ``shown`` is how the user wrote it."""

    key: Path
    value: object
    shown: str

    @classmethod
    def parse(cls, text: str, shown: str | None = None) -> Override:
        """``"guest.memory=2GiB"``; ``shown`` e.g. ``"--memory 2GiB"`` for a short form."""
        shown = shown or f"--set {text}"
        key, equals, value = text.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            raise LocatedError(
                Problem(Place(shown), "", "expected key=value, such as guest.memory=2GiB, with a dotted key")
            )
        return cls(parts, _written_value(value.strip(), shown), shown)


def _written_value(text: str, shown: str) -> object:
    """A list, a mapping and a quoted text are read as YAML; all else is one plain scalar, with its blanks."""
    if text[:1] not in ("[", "{", "'", '"'):
        return scalar(text)
    try:
        _refuse_indirection(text, shown)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not one value"
        text = f"expected a YAML value behind the =: {problem}"
        raise LocatedError(Problem(Place(shown), "", text)) from error
    assert node is not None
    return _construct(node, (), {}, shown)


def scalar(text: str) -> object:
    """What a plain (unquoted) scalar means."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        whole = WrittenInt(int(text.replace("_", ""), 0))
        whole.text = text
        return whole
    if _FLOAT.fullmatch(text):
        real = WrittenFloat(text)
        real.text = text
        return real
    return text


def dotted(path: Path) -> str:
    """``("guest", "memory")`` as a user writes it: ``guest.memory``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class LocatedTree:
    """Plain data with the place of every key in it."""

    def __init__(self, data: Mapping[str, object], places: Mapping[Path, Place], source: str) -> None:
        self.data = data
        self.source = source
        self._places = places

    def place(self, path: Path) -> Place:
        """Where ``path`` was written; the nearest enclosing key if it was not."""
        for end in range(len(path), -1, -1):
            if path[:end] in self._places:
                return self._places[path[:end]]
        return Place(self.source)

    def value(self, path: Path) -> object:
        """What is at ``path``, or None."""
        found: object = self.data
        for part in path:
            if isinstance(found, list):
                known = isinstance(part, int) and part < len(found)
            else:
                known = isinstance(found, Mapping) and part in found
            if not known:
                return None
            found = found[part]  # type: ignore[index]
        return found

    def with_overrides(self, overrides: Sequence[Override]) -> LocatedTree:
        """A new tree in which each override has replaced what was there."""
        data: dict[str, object] = dict(self.data)
        places = dict(self._places)
        for override in overrides:
            _replace(data, override)
            for known in [p for p in places if p[: len(override.key)] == override.key]:
                del places[known]
            place = places[override.key] = Place(override.shown)
            for end in range(1, len(override.key)):
                places.setdefault(override.key[:end], place)
        return LocatedTree(data, places, self.source)


def _replace(data: dict[str, object], override: Override) -> None:
    here = data
    for part in override.key[:-1]:
        below = here.get(str(part))
        if below is not None and not isinstance(below, Mapping):
            raise LocatedError(
                Problem(
                    Place(override.shown), dotted(override.key), f"{part!r} has a value, not keys of its own"
                )
            )
        copy: dict[str, object] = dict(below or {})
        here[str(part)] = copy
        here = copy
    here[str(override.key[-1])] = override.value


def parse_yaml(text: str, source: str) -> LocatedTree:
    """Read one YAML document whose top level is a mapping."""
    try:
        _refuse_indirection(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise LocatedError(Problem(_at(source, mark), "", f"not valid YAML: {words}")) from error
    except yaml.YAMLError as error:  # e.g. a control character
        words = " ".join(str(error).split())
        raise LocatedError(Problem(Place(source), "", f"not valid YAML: {words}")) from error
    if root is None:
        raise LocatedError(Problem(Place(source, 1, 1), "", "the file is empty; expected a mapping of keys"))
    places: dict[Path, Place] = {}
    data = _construct(root, (), places, source)
    if not isinstance(data, dict):
        raise LocatedError(Problem(Place(source, 1, 1), "", "expected a mapping of keys at the top level"))
    return LocatedTree(data, places, source)


class _Mark(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def _at(source: str, mark: _Mark | None) -> Place:
    return Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)


def _refuse_indirection(text: str, source: str) -> None:
    # Before composing: an alias can make a document refer to itself, or grow without bound.
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise LocatedError(Problem(_at(source, event.start_mark), "", "nested too deeply"))
        if isinstance(event, yaml.AliasEvent):
            raise LocatedError(
                Problem(_at(source, event.start_mark), "", "aliases (*name) are not supported")
            )
        tag = getattr(event, "tag", None)
        if isinstance(tag, str) and tag != "!":
            raise LocatedError(Problem(_at(source, event.start_mark), "", f"tags are not supported: {tag}"))


def _construct(node: yaml.Node, path: Path, places: dict[Path, Place], source: str) -> object:
    places.setdefault(path, _at(source, node.start_mark))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, places, source)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, n), places, source) for n, item in enumerate(node.value)]
    value = str(node.value)
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return scalar(value) if plain else value


def _mapping(node: yaml.MappingNode, path: Path, places: dict[Path, Place], source: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for key_node, value_node in node.value:
        place = _at(source, key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            raise LocatedError(Problem(place, dotted(path), "expected a key, which is one word"))
        key = str(key_node.value)
        if key in result:
            first = places[(*path, key)].line
            raise LocatedError(Problem(place, dotted((*path, key)), f"duplicate key (first in line {first})"))
        places[(*path, key)] = place
        result[key] = _construct(value_node, (*path, key), places, source)
    return result
