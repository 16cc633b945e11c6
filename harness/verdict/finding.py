# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a run fail, as the judge and all that leads to it say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that makes a run fail: which rule, how often, and in words.

    ``kind``: memory (a page is wrong), witness (the outside walk contradicts the
    guest's answer), record (the device's record contradicts itself or the
    protocol), guest (the guest's own checks), expectation.
    """

    rule: str
    kind: str
    text: str
    count: int = 1
    block: str | None = None
    pages: tuple[int, ...] = ()
    """The first pages that it is about, by number in the block."""
