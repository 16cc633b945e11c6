# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps of disks, which tell a backup what has been written: the destination has to have the same.

With the capability ``dirty-bitmaps`` QEMU sends them in its stream (migration/block-dirty-bitmap.c).  Both
sides are asked while the guest stands still.  Pure: :mod:`harness.migration.bitmaps` asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND

#: The rule.
DIFFER: Final = "bitmaps-differ"
#: The capability.
CAPABILITY: Final = "dirty-bitmaps"


@dataclass(frozen=True, slots=True)
class DirtyBitmap:
    """A bitmap of a block node; ``count`` in bytes, ``digest`` of its bits."""

    node: str
    name: str
    granularity: int
    persistent: bool
    recording: bool
    count: int
    digest: str


def bitmap_findings(source: Sequence[DirtyBitmap], destination: Sequence[DirtyBitmap]) -> Iterator[Finding]:
    """For each bitmap of the source that the destination has not, or has otherwise."""
    there = {(one.node, one.name): one for one in destination}
    for here in source:
        other = there.get((here.node, here.name))
        if other is None:
            yield Finding(DIFFER, KIND, f"{_of(here)} is not there on the destination")
        elif other != here:
            parts = ("granularity", "persistent", "recording", "count", "digest")
            told = (
                f"{part} {getattr(here, part)} -> {getattr(other, part)}"
                for part in parts
                if getattr(here, part) != getattr(other, part)
            )
            yield Finding(DIFFER, KIND, f"{_of(here)} is another on the destination: {', '.join(told)}")


def _of(bitmap: DirtyBitmap) -> str:
    return f"the dirty bitmap {bitmap.name!r} of the disk {bitmap.node!r}"
