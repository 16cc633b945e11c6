# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps of disks, which tell a backup what has been written: the destination has to have the same.

With the capability ``dirty-bitmaps`` QEMU sends them in its stream (migration/block-dirty-bitmap.c).  Both
sides are asked while the guest stands still.  Pure: :mod:`harness.migration.bitmaps` asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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


def bitmap_findings(
    source: Sequence[DirtyBitmap],
    destination: Sequence[DirtyBitmap],
    mapping: Sequence[Mapping[str, Any]] | None = None,
) -> Iterator[Finding]:
    """For each bitmap of the source that the destination has not, or has otherwise.

    ``mapping``: the parameter block-bitmap-mapping that both sides were told, by which a bitmap that it does
    not name stays behind; None: they were told of none, and all go.
    """
    there = {(one.node, one.name): one for one in destination}
    named = _named(mapping or ())
    for here in source:
        key = (here.node, here.name)
        other = there.get(key)
        if mapping is not None and key not in named:
            # One that the disk keeps comes with the disk.
            if other is not None and not here.persistent:
                text = f"{_of(here)} is there on the destination, and block-bitmap-mapping does not name it"
                yield Finding(DIFFER, KIND, text)
            continue
        if other is None:
            yield Finding(DIFFER, KIND, f"{_of(here)} is not there on the destination")
        elif other != here:
            parts = ["granularity", "persistent", "recording", "count", "digest"]
            if named.get(key, {}).get("transform"):
                # It becomes persistent on the destination, or is so no more.
                parts.remove("persistent")
            told = [
                f"{part} {getattr(here, part)} -> {getattr(other, part)}"
                for part in parts
                if getattr(here, part) != getattr(other, part)
            ]
            if told:
                yield Finding(DIFFER, KIND, f"{_of(here)} is another on the destination: {', '.join(told)}")


def _named(mapping: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """What it says of each bitmap that it names, by the bitmap's node and name."""
    return {(node["node-name"], one["name"]): one for node in mapping for one in node["bitmaps"]}


def _of(bitmap: DirtyBitmap) -> str:
    return f"the dirty bitmap {bitmap.name!r} of the disk {bitmap.node!r}"
