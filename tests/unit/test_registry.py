# SPDX-License-Identifier: GPL-2.0-or-later
"""A key of a file that chooses among registered classes: validated, located, described, written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import MIB, Section, Size


class Shape(Section):
    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        SHAPES.add(cls)


SHAPES: Registry[Shape] = Registry(Shape, key="kind", noun="shape")


class Disc(Shape):
    kind: Literal["disc"] = "disc"
    size: Size = 2 * MIB


class Round(Shape):
    """Without a word of its own: a base of others."""


class Drawing(Section):
    shape: Annotated[Shape, OneOf(SHAPES)] = Disc()
    more: tuple[Annotated[Shape, OneOf(SHAPES)], ...] = ()


@pytest.fixture
def ring() -> Iterator[type[Shape]]:
    with SHAPES.temporary():

        class Ring(Round):
            kind: Literal["ring"] = "ring"
            inside: Size
            outside: Size

        yield Ring


def test_a_class_is_known_from_its_definition_on(ring: type[Shape]) -> None:
    assert list(SHAPES) == ["disc", "ring"]
    drawing = Drawing.model_validate({"shape": {"kind": "ring", "inside": "1MiB", "outside": "3MiB"}})
    assert isinstance(drawing.shape, ring)
    assert drawing.model_dump(mode="json")["shape"] == {"kind": "ring", "inside": "1MiB", "outside": "3MiB"}
    assert Drawing(shape=drawing.shape) == drawing


def test_it_is_forgotten() -> None:
    assert list(SHAPES) == ["disc"]
    with pytest.raises(ValidationError):
        Drawing.model_validate({"shape": {"kind": "ring", "inside": "1MiB", "outside": "3MiB"}})


def test_errors_keep_their_place_and_their_kind(ring: type[Shape]) -> None:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(
            {
                "shape": {"kind": "ring", "inside": "1 mile", "outsid": "3MiB"},
                "more": ({"kind": "rign"}, 5, {}),
            }
        )
    found = {error["loc"]: error for error in caught.value.errors()}
    assert {place: error["type"] for place, error in found.items()} == {
        ("shape", "inside"): "value_error",
        ("shape", "outside"): "missing",
        ("shape", "outsid"): "extra_forbidden",
        ("more", 0): "unknown-kind",
        ("more", 1): "model_attributes_type",
        ("more", 2): "unknown-kind",
    }
    assert found["more", 0]["ctx"] == {"key": "kind", "known": ("disc", "ring")}
    assert found["shape", "inside"]["input"] == "1 mile"


def test_the_schema_has_all_of_them(ring: type[Shape]) -> None:
    schema = Drawing.model_json_schema()
    described = schema["properties"]["shape"]
    assert described["discriminator"] == {
        "mapping": {"disc": "#/$defs/Disc", "ring": "#/$defs/Ring"},
        "propertyName": "kind",
    }
    assert described["oneOf"] == [{"$ref": "#/$defs/Disc"}, {"$ref": "#/$defs/Ring"}]
    assert schema["$defs"]["Ring"]["required"] == ["inside", "outside"]


def test_a_word_is_one_class() -> None:
    with pytest.raises(ValueError, match="shape 'disc': both Other and Disc are it"):

        class Other(Shape):
            kind: Literal["disc"] = "disc"
