# SPDX-License-Identifier: GPL-2.0-or-later
"""What the migration's own stream says of each page, as a fact for the rules.

It needs no patched QEMU: a tap between the hosts has it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: So many pages are listed of each kind.
MOST_LISTED = 32


@dataclass(frozen=True, slots=True)
class PageList:
    """Pages of one kind: how many, and the first of them."""

    count: int = 0
    first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WireBlock:
    """One RAMBlock on the wire.  Counts are of sendings; the rest of pages.

    ``not_loaded``: came last as something else than the destination holds.
    ``stale``: came last as something else than the source held at switch-over.
    ``never``: never came.  ``record_only`` and ``wire_only``: sent by one account alone.
    """

    name: str
    pages: int
    full: int = 0
    zero: int = 0
    delta: int = 0
    again: int = 0
    not_loaded: PageList = PageList()
    stale: PageList = PageList()
    never: PageList = PageList()
    record_only: PageList = PageList()
    wire_only: PageList = PageList()


@dataclass(frozen=True, slots=True)
class WireFacts:
    """The whole stream: bytes, its sections of memory, its blocks."""

    bytes: int
    memory_sections: int
    blocks: tuple[WireBlock, ...]
