# SPDX-License-Identifier: GPL-2.0-or-later
"""A suite's list of packages or sources, in which paragraphs are found by name.

A list has 70,000 paragraphs of which a few are wanted: only those are parsed.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from debian.deb822 import Deb822, PkgRelation
from debian.debian_support import Version

_PACKAGE: Final = re.compile(rb"^Package: *(\S+) *$", re.MULTILINE)
_PROVIDES: Final = re.compile(rb"^Provides:", re.MULTILINE)


class Paragraphs:
    """The text of a list."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        places: dict[str, list[int]] = defaultdict(list)
        for match in _PACKAGE.finditer(text):
            places[match[1].decode("utf-8", "replace")].append(match.start())
        self._places: Mapping[str, list[int]] = places

    def names(self) -> Iterator[str]:
        """Of all packages."""
        return iter(self._places)

    def newest(self, name: str) -> Mapping[str, str] | None:
        """The fields of a package; of several versions, those of the newest."""
        found = [self._fields(place) for place in self._places.get(name, ())]
        wanted = [fields for fields in found if "Version" in fields and "Extra-Source-Only" not in fields]
        return max(wanted, key=lambda fields: Version(fields["Version"]), default=None)

    def providers(self, name: str) -> list[tuple[str, str | None]]:
        """The packages that say they provide this one, with the version that they give it."""
        return sorted(self._provided.get(name, ()), key=lambda provider: provider[0])

    def _fields(self, place: int) -> Mapping[str, str]:
        text = self._text
        begin, end = text.rfind(b"\n\n", 0, place), text.find(b"\n\n", place)
        paragraph = text[begin + 2 if begin >= 0 else 0 : end if end >= 0 else len(text)]
        return {str(key): str(value) for key, value in Deb822(paragraph).items()}

    @functools.cached_property
    def _provided(self) -> Mapping[str, list[tuple[str, str | None]]]:
        found: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        for match in _PROVIDES.finditer(self._text):
            fields = self._fields(match.start())
            for group in PkgRelation.parse_relations(fields["Provides"]):
                for relation in group:
                    version = relation["version"]
                    found[relation["name"]].append((fields["Package"], version[1] if version else None))
        return found
