# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario's edits, made in a domain's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from harness.scenario.raw import XmlEdit, parse_fragment, relative_path


class EditError(Exception):
    """An edit finds nothing to change; ``number`` is its place in the list."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def edit(root: ET.Element, edits: Sequence[XmlEdit]) -> None:
    """Make the edits, one after the other.  Raises :class:`EditError`."""
    for number, one in enumerate(edits):
        found = root.findall(relative_path(one.at))
        if not found:
            raise EditError(number, f"the guest's domain has nothing at {one.at!r}")
        if root in found and (one.remove or one.replace is not None):
            raise EditError(number, "the domain itself cannot be taken away")
        for element in found:
            _change(root, element, one)


def _change(root: ET.Element, element: ET.Element, one: XmlEdit) -> None:
    if one.add is not None:
        element.append(parse_fragment(one.add))
    for name, value in (one.set or {}).items():
        if value is None:
            element.attrib.pop(name, None)
        else:
            element.set(name, value)
    if one.text is not None:
        element.text = one.text
    if one.remove or one.replace is not None:
        parent = next(parent for parent in root.iter() if element in parent)
        place = list(parent).index(element)
        parent.remove(element)
        if one.replace is not None:
            parent.insert(place, parse_fragment(one.replace))
