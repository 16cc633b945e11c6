# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's state cut at its subsections, which bear their names.

A subsection is what QEMU adds to a device's state later, or writes only if it is needed: a
mark, the length of the name, the name, a version of four bytes (``vmstate_subsection_save()``
in migration/vmstate.c).  Its name begins with that of what it belongs to, and a slash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MARK: Final = 5
_NAME: Final = re.compile(rb"[A-Za-z][\w.-]*(/[\w.-]+)+")
_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class StatePart:
    """A subsection's data; ``offset``: where it begins in the section."""

    offset: int
    data: bytes


def split_at_subsections(data: bytes) -> Mapping[str, StatePart]:
    """The parts of a section by name, in order; what comes before the first subsection has the name ""."""
    marks = []
    at = data.find(_MARK)
    while at >= 0:
        length = data[at + 1] if at + 1 < len(data) else 0
        name = data[at + 2 : at + 2 + length]
        if length and len(name) == length and _NAME.fullmatch(name):
            marks.append((at, name.decode("ascii"), at + 2 + length + _VERSION))
            at += length + _VERSION
        at = data.find(_MARK, at + 1)
    parts = [("", 0), *((label, begin) for _, label, begin in marks)]
    ends = [*(mark for mark, _, _ in marks), len(data)]
    found: dict[str, StatePart] = {}
    for (label, begin), end in zip(parts, ends, strict=True):
        # Elements of an array may each have a subsection of one name.
        number = sum(known.partition("#")[0] == label for known in found)
        found[f"{label}#{number}" if number else label] = StatePart(begin, data[begin:end])
    return found
