# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule finds: something that makes a run fail, or something that is only counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The kinds of findings, the gravest first.
KINDS: Final = ("memory", "outcome", "device", "witness", "record", "guest", "expectation")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that makes a run fail: which rule, how often, and in words.

    ``kind``: memory (a page is wrong), outcome (how the migration ended), device
    (the state of a device or vCPU), witness (the outside walk contradicts the
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


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that is harmless and worth knowing: a name, and how often.  docs/oracle.md explains each."""

    name: str
    count: int
