# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that were copied with the guest: what it would read of each, on either host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.events import EventStream
from harness.units import PAGE_SIZE
from harness.verdict.rules.copied_disks import CopiedDisk, CopiedDisks

#: Bytes that are compared at a time: whole pages.
_PIECE: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class CopiedImages:
    """A disk of which each host has an image of its own.

    ``source`` and ``destination`` make a raw image of what is on it, which nobody writes to meanwhile.
    """

    name: str
    source: Callable[[], Path]
    destination: Callable[[], Path]


def compare_copies(copied: Sequence[CopiedImages], events: EventStream) -> CopiedDisks | None:
    """The fact for the verdict; None: no disk was copied.  The guest stands still on both sides."""
    if not copied:
        return None
    found = []
    for images in copied:
        with events.step("compare disk", disk=images.name) as step:
            disk = compare_disk(images.name, images.source(), images.destination())
            step.note(pages=disk.pages, differing=disk.differing)
        found.append(disk)
    return CopiedDisks(tuple(found))


def compare_disk(name: str, source: Path, destination: Path) -> CopiedDisk:
    """Two raw images, page by page; where one of them ends, the other has pages that differ."""
    pages = differing = 0
    first: int | None = None
    for here, there in _pieces(source, destination):
        count = -(-max(len(here), len(there)) // PAGE_SIZE)
        if here != there:
            sides = [np.zeros((count, PAGE_SIZE), np.uint8) for _ in range(2)]
            for side, piece in zip(sides, (here, there), strict=True):
                side.reshape(-1)[: len(piece)] = np.frombuffer(piece, np.uint8)
            wrong = (sides[0] != sides[1]).any(axis=1)
            wrong[min(len(here), len(there)) // PAGE_SIZE :] |= len(here) != len(there)
            numbers = np.flatnonzero(wrong)
            differing += int(numbers.size)
            if first is None and numbers.size:
                first = pages + int(numbers[0])
        pages += count
    return CopiedDisk(name, pages, differing, first)


def _pieces(source: Path, destination: Path) -> Iterator[tuple[bytes, bytes]]:
    with source.open("rb") as here, destination.open("rb") as there:
        while True:
            pair = here.read(_PIECE), there.read(_PIECE)
            if not any(pair):
                return
            yield pair
