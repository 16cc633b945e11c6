# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of one thing, which register themselves, and the key of a file that chooses among them.

A base class has a registry, and each class below it enters itself by its word::

    class Workload(Section):
        kind: str

        @classmethod
        def __pydantic_init_subclass__(cls, **_: object) -> None:
            WORKLOADS.add(cls)

    WORKLOADS: Registry[Workload] = Registry(Workload, key="kind", noun="workload")

    class Idle(Workload):
        kind: Literal["idle"] = "idle"

    class Scenario(Section):
        workload: Annotated[Workload, OneOf(WORKLOADS)] = Idle()

The registry is read when a file is validated, so a class that is defined later is known as well.
:class:`OneOf` validates and describes (JSON Schema) as pydantic's discriminated union does, except that
the place of an error has no word in it that the file has not.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

_Kind = TypeVar("_Kind", bound=BaseModel)

#: The type of the error for a word that no class has registered; ``key`` and ``known`` are in its context.
UNKNOWN_KIND: Final = "unknown-kind"


class Registry(Mapping[str, type[_Kind]]):
    """The classes of one kind of thing, by the word that a file chooses them with.

    ``base`` is the class that they all have above them, ``key`` the field that holds the word, and
    ``noun`` what messages call the thing.
    """

    def __init__(self, base: type[_Kind], *, key: str, noun: str) -> None:
        self.base = base
        self.key = key
        self.noun = noun
        self._kinds: dict[str, type[_Kind]] = {}

    def add(self, kind: type[_Kind]) -> type[_Kind]:
        """Enter a class by the default of its field ``key``; one without a default is a base of others.

        Raises ValueError if another class has the same word.
        """
        word = kind.model_fields[self.key].default
        if isinstance(word, str):
            other = self._kinds.setdefault(word, kind)
            if other is not kind:
                raise ValueError(f"{self.noun} {word!r}: both {kind.__name__} and {other.__name__} are it")
        return kind

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """What registers itself inside of this block is forgotten after it; for tests."""
        before = dict(self._kinds)
        try:
            yield
        finally:
            self._kinds = before

    def __getitem__(self, word: str) -> type[_Kind]:
        return self._kinds[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def chosen_by(self, value: object) -> type[_Kind] | None:
        """The class that the keys of a file choose, or None."""
        word = value.get(self.key) if isinstance(value, Mapping) else None
        return self._kinds.get(word) if isinstance(word, str) else None


@dataclass(frozen=True, eq=False)
class OneOf(Generic[_Kind]):
    """For ``Annotated[Base, OneOf(REGISTRY)]``: a value of one of the registered classes."""

    registry: Registry[_Kind]

    def _validate(self, value: object) -> _Kind:
        registry = self.registry
        if isinstance(value, registry.base):
            return value
        if not isinstance(value, Mapping):
            raise PydanticKnownError("model_attributes_type")
        kind = registry.chosen_by(value)
        if kind is None:
            context = {"key": registry.key, "known": tuple(registry)}
            raise PydanticCustomError(UNKNOWN_KIND, "expected one of {known} for {key}", context)
        # pydantic takes the errors of this one over, each with its place below ours.
        return kind.model_validate(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            # Written by the value's own class, which has more keys than the base.
            self._validate,
            serialization=core_schema.simple_ser_schema("any"),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        kinds = {word: kind.__pydantic_core_schema__ for word, kind in self.registry.items()}
        return handler(core_schema.tagged_union_schema(kinds, self.registry.key))


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import each module of a package (its ``__name__`` and ``__path__``), so that its classes register."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
