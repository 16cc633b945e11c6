# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own trace of a migration: which page arrived in which round.

    arguments(path, "source")                        # for QEMU's command line
    sendings = sendings_of(source_trace, destination_trace)

The destination traces each page that arrives and the end of each section; the
source traces the end of each section of RAM that it sends, and each sync of the
dirty bitmap, between which lie the rounds.  Both count the same sections, so the
rounds of one are those of the other, whatever was still on its way when.

With multifd pages come in packets, which QEMU does not trace page by page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import MachineryError
from harness.explain.sendings import DELTA, FULL, ZERO, Sendings
from harness.units import PAGE_SIZE

_EVENTS: Final = {
    "source": ("migrate_set_state", "migration_bitmap_sync_start", "savevm_section_end"),
    "destination": ("ram_load_loop", "ram_load_complete"),
}

#: With or without the time in front that libvirt asks for.
_LINE: Final = re.compile(rb"(?:\d+@\d+\.\d+:)?(?P<event>[a-z_]+) (?P<text>.*)")
_PAGE: Final = re.compile(rb"(?P<block>.+): addr: 0x(?P<offset>[0-9a-f]+) flags: 0x(?P<flags>[0-9a-f]+) ")
#: RAM_SAVE_FLAG_ZERO, _PAGE and _XBZRLE.
_HOW: Final = {0x02: ZERO, 0x08: FULL, 0x40: DELTA}
_RAM: Final = b"ram, "


def arguments(path: Path) -> tuple[str, ...]:
    """What makes a QEMU trace what is needed of either side into a file of its own."""
    words = ["-D", str(path)]
    for names in _EVENTS.values():
        for name in names:
            words += ["-trace", f"enable={name}"]
    return tuple(words)


def _lines(path: Path) -> Iterator[tuple[bytes, bytes]]:
    try:
        with path.open("rb") as file:
            for line in file:
                match = _LINE.match(line)
                if match:
                    yield match["event"], match["text"]
    except OSError as error:
        raise MachineryError(f"cannot read QEMU's trace {path}: {error.strerror}") from error


def rounds(path: Path) -> list[int]:
    """The round of each section of RAM that the source sent in its last migration, the first one 1."""
    found: list[int] = []
    syncs = 0
    for event, text in _lines(path):
        if event == b"migrate_set_state" and text.rstrip().endswith(b"setup"):
            found, syncs = [], 0
        elif event == b"migration_bitmap_sync_start":
            syncs += 1
        elif event == b"savevm_section_end" and text.startswith(_RAM):
            found.append(max(1, syncs))
    return found


@dataclass(slots=True)
class _Arrivals:
    """Of one block: page, section and how, in the order of arrival."""

    page: list[int] = field(default_factory=list)
    section: list[int] = field(default_factory=list)
    how: list[int] = field(default_factory=list)


def sendings_of(source: Path, destination: Path) -> dict[str, Sendings]:
    """The sendings by block name.  Raises :class:`MachineryError` if the traces are of two migrations."""
    by_section = rounds(source)
    arrivals: dict[str, _Arrivals] = {}
    section = 0
    for event, text in _lines(destination):
        if event == b"ram_load_complete":
            section += 1
            continue
        match = _PAGE.match(text) if event == b"ram_load_loop" else None
        if match is None:
            continue
        flags = int(match["flags"], 16)
        how = next((how for flag, how in _HOW.items() if flags & flag), None)
        if how is not None:
            mine = arrivals.setdefault(match["block"].decode("ascii", "replace"), _Arrivals())
            mine.page.append(int(match["offset"], 16) // PAGE_SIZE)
            mine.section.append(section)
            mine.how.append(how)
    # The section in which the blocks are listed has pages in none of its traces' ends at the source.
    before = section - len(by_section)
    if not 0 <= before <= 1:
        raise MachineryError(
            f"QEMU's traces do not fit together: the source sent {len(by_section)} sections of RAM, "
            f"{section} arrived at the destination"
        )
    lookup = np.array([1] * before + by_section, dtype=np.uint16)
    return {
        name: Sendings(
            np.array(mine.page, dtype=np.uint32),
            lookup[np.array(mine.section, dtype=np.int64)],
            np.array(mine.how, dtype=np.uint8),
        )
        for name, mine in arrivals.items()
    }
