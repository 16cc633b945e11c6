# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out, where no key says it: edits of the domain's XML, words for QEMU, properties of its devices."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.scenario.values import Section, Text, as_tuple

#: A fragment, or a word, longer than this was not written by a person.
_LONGEST: Final = 1 << 16
#: Not in XML 1.0, and no part of a word on a command line.
_STRANGE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_GLOBAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]*\.[A-Za-z0-9_][A-Za-z0-9_-]*=.*", re.DOTALL)


def _plain(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters")
    if bad := _STRANGE.search(text):
        raise ValueError(f"expected no character {bad.group()!r}")
    return text


def parse_fragment(text: str) -> ET.Element:
    """One element.  Raises :class:`ValueError`; entities and document types are none of it."""
    if "<!" in text or "<?" in text:
        raise ValueError("expected one element, without comments, declarations or entities of its own")
    try:
        return ET.fromstring(text)  # noqa: S314 - without a document type there is nothing to expand
    except ET.ParseError as error:
        raise ValueError(f"expected one XML element: {error}") from error


def _fragment(text: str) -> str:
    if parse_fragment(_plain(text)).tag.startswith("{http://libvirt.org/schemas/domain/qemu"):
        raise ValueError("expected none of libvirt's elements for QEMU: guest.qemu_args is for these")
    return text


def relative_path(path: str) -> str:
    """An XPath below ``<domain>``, of one that may begin with ``/domain/``."""
    return path.removeprefix("/domain/").removeprefix("/domain") or "."


def _path(text: str) -> str:
    try:
        ET.Element("domain").findall(relative_path(_plain(text)))
    except (SyntaxError, KeyError, TypeError) as error:
        raise ValueError(f"expected an XPath below <domain>: {error}") from error
    return text


def _attributes(given: Mapping[str, object]) -> Mapping[str, object]:
    for name in given:
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected the name of an attribute, got {name!r}")
    return given


def _global(text: str) -> str:
    if not _GLOBAL.fullmatch(_plain(text)):
        raise ValueError(
            f"expected driver.property=value, such as virtio-net-pci.disable-legacy=on, got {text!r}"
        )
    return text


Fragment: TypeAlias = Annotated[Text, AfterValidator(_fragment)]


class XmlEdit(Section):
    """One change of the domain's XML, of the elements that an XPath finds."""

    at: Annotated[Text, Field(min_length=1), AfterValidator(_path)]
    """Which elements: an XPath below `<domain>`, such as `devices` or `devices/interface/model`. It must find
    some."""
    add: Fragment | None = None
    """XML of one element, which becomes the last child of each."""
    replace: Fragment | None = None
    """XML of one element, which takes the place of each."""
    set: Annotated[Mapping[str, Text | None], AfterValidator(_attributes)] | None = None
    """Attributes by name; null takes one away."""
    text: Annotated[Text, AfterValidator(_plain)] | None = None
    """Their text."""
    remove: bool = False
    """Whether they are taken away."""

    @model_validator(mode="after")
    def _one_thing(self) -> XmlEdit:
        said = [self.add, self.replace, self.set, self.text, self.remove or None]
        if sum(one is not None for one in said) != 1:
            raise PydanticCustomError(
                "in-entry", "expected one of add, replace, set, text, remove", {"path": ()}
            )
        return self


XmlEdits: TypeAlias = Annotated[tuple[XmlEdit, ...], BeforeValidator(as_tuple), Field(max_length=64)]
QemuWords: TypeAlias = Annotated[
    tuple[Annotated[Text, AfterValidator(_plain)], ...], BeforeValidator(as_tuple), Field(max_length=256)
]
Globals: TypeAlias = Annotated[
    tuple[Annotated[Text, AfterValidator(_global)], ...], BeforeValidator(as_tuple), Field(max_length=64)
]

#: In a word for QEMU: the name of the host that the word is for.
HOST_WORD: Final = "@HOST@"


def words_for(words: tuple[str, ...], host: str) -> tuple[str, ...]:
    """The words for the QEMU of one host, ``source`` or ``destination``."""
    return tuple(word.replace(HOST_WORD, host) for word in words)
