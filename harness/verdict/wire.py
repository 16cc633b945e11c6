# SPDX-License-Identifier: GPL-2.0-or-later
"""What the migration's own stream says of each page, as a fact for the rules.

It needs no patched QEMU: a tap between the hosts has it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: So many pages are listed of each kind.
MOST_LISTED = 32
#: So many rounds are told apart.
MOST_ROUNDS = 100


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
    ``never``: never came, or were thrown away for postcopy and did not come again.
    ``unordered``: came by two connections with nothing that says which is later.
    ``record_only`` and ``wire_only``: sent by one account alone.
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
    unordered: PageList = PageList()
    record_only: PageList = PageList()
    wire_only: PageList = PageList()


@dataclass(frozen=True, slots=True)
class WireBytes:
    """Bytes of all connections, and how many of them were whole pages, deltas, and devices' states."""

    total: int
    whole: int = 0
    deltas: int = 0
    devices: int = 0


@dataclass(frozen=True, slots=True)
class WireRound:
    """Sendings of pages of one round, by form."""

    full: int
    zero: int
    delta: int


@dataclass(frozen=True, slots=True)
class WirePace:
    """Bytes that had passed when the source stopped its guest, the seconds until then, and the limit.

    ``limit`` is in bytes a second.  ``left``: the most bytes that the scenario's limit on the pause leaves
    for after the stop; None: nothing can be said of it.
    """

    bytes: int
    seconds: float
    limit: int
    left: int | None = None


@dataclass(frozen=True, slots=True)
class PagesCounted:
    """What the source's QEMU says of a migration that stayed precopy: pages sent whole, and as zeros.

    ``bytes``: all that it has sent; None: this QEMU does not count them all.
    """

    full: int
    zero: int
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WireFacts:
    """The whole stream: bytes, its sections of memory, its blocks, its rounds.

    ``unread``: why there is nothing but bytes.
    """

    bytes: WireBytes
    memory_sections: int
    blocks: tuple[WireBlock, ...] = ()
    rounds: tuple[WireRound, ...] = ()
    unread: str | None = None
    pace: WirePace | None = None
