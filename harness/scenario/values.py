# SPDX-License-Identifier: GPL-2.0-or-later
"""What a key of a scenario may hold: sizes, rates, shares, and the model that all sections are made of."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from harness.scenario.located import WrittenFloat, WrittenInt
from harness.units import (
    PERCENT_PATTERN,
    RATE_PATTERN,
    SIZE_PATTERN,
    Percent,
    format_rate,
    format_size,
    parse_rate,
    parse_size,
    parse_size_or_percent,
)

MIB = 2**20

#: Kernels that the toolchain knows by name; all else is a path.
KERNELS = ("default", "trixie", "newest", "generic", "rt", "16k", "debug")


#: Firmware that is known by name; all else is a path.
FIRMWARE = ("seabios", "ovmf", "ovmf-smm")


def firmware_name(text: str) -> str:
    """A name out of :data:`FIRMWARE`, or the path of an image."""
    if text in FIRMWARE or "/" in text:
        return text
    raise ValueError(f"expected {', '.join(FIRMWARE)}, or a path (with a slash), got {text!r}")


#: Guests that are made of our recipes; all else is the path of an image.
IMAGES = ("small", "debian")


def image_name(text: str) -> str:
    """A name out of :data:`IMAGES`, or the path of a disk image."""
    if text in IMAGES or "/" in text:
        return text
    raise ValueError(f"expected {' or '.join(IMAGES)}, or a path (with a slash), got {text!r}")


def kernel_name(text: str) -> str:
    """A name out of :data:`KERNELS`, or the path of a kernel."""
    if text in KERNELS or "/" in text:
        return text
    raise ValueError(f"expected {', '.join(KERNELS)}, or a path (with a slash), got {text!r}")


#: Configurations that a kernel's source has; all else is the path of one.
KERNEL_CONFIGURATIONS = ("defconfig", "tinyconfig")


def kernel_configuration(text: str) -> str:
    """A name out of :data:`KERNEL_CONFIGURATIONS`, or the path of a ``.config``."""
    if text in KERNEL_CONFIGURATIONS or "/" in text:
        return text
    raise ValueError(f"expected {' or '.join(KERNEL_CONFIGURATIONS)}, or a path (with a slash), got {text!r}")


def _written(value: object) -> object:
    """The text of a number where text is wanted: ``kernel: 6.10`` stays 6.10."""
    return value.text if isinstance(value, WrittenInt | WrittenFloat) else value


def _size(value: object) -> object:
    value = _written(value)
    return parse_size(value) if isinstance(value, str) else _no_plain_number(value, "'2GiB'")


def _rate(value: object) -> object:
    value = _written(value)
    return parse_rate(value) if isinstance(value, str) else _no_plain_number(value, "'32MiB/s'")


def _share(value: object) -> object:
    value = _written(value)
    if isinstance(value, str):
        return parse_size_or_percent(value)
    return value if isinstance(value, Percent) else _no_plain_number(value, "'1500MiB' or '73%'")


def _no_plain_number(value: object, example: str) -> object:
    # An int comes from code (a resolved scenario, a test), never from a file.
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"expected a size such as {example}, got {value!r}")


def _show_share(value: int | Percent) -> str:
    return str(value) if isinstance(value, Percent) else format_size(value)


def _schema(*patterns: str, example: str) -> WithJsonSchema:
    text: dict[str, object] = {"type": "string", "examples": [example]}
    if len(patterns) == 1:
        return WithJsonSchema({**text, "pattern": patterns[0]})
    return WithJsonSchema({**text, "anyOf": [{"pattern": pattern} for pattern in patterns]})


Text: TypeAlias = Annotated[str, BeforeValidator(_written)]
Size: TypeAlias = Annotated[
    int, BeforeValidator(_size), PlainSerializer(format_size), _schema(SIZE_PATTERN, example="2GiB")
]
Rate: TypeAlias = Annotated[
    int, BeforeValidator(_rate), PlainSerializer(format_rate), _schema(RATE_PATTERN, example="32MiB/s")
]
Share: TypeAlias = Annotated[
    int | Percent,
    BeforeValidator(_share),
    PlainSerializer(_show_share),
    _schema(SIZE_PATTERN, PERCENT_PATTERN, example="73%"),
]


class Section(BaseModel):
    """A section of a scenario: frozen, and with no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @classmethod
    def doc_notes(cls) -> tuple[str, ...]:
        """Sentences for the documentation, beside the docstring: what the class declares otherwise."""
        return ()


def as_tuple(value: object) -> object:
    """A list of a file, as the unchangeable thing that a scenario holds."""
    return tuple(value) if isinstance(value, list) else value
