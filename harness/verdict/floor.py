# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes that had to be sent, and where the others went.

    account = account_of(case, record, digests, sent=ram_transferred, pages_sent=normal + duplicate)
    account.sent == account.floor + account.head + account.again + account.rest

The floor costs every page at the instant at which it is counted: a page that
is not zero and not free must travel whole (4104 bytes: content and header), a
zero page as a header and a flag (9 bytes; 8 with multifd), a free page not at all.

Less than the floor is legal: XBZRLE compresses, and pages become free later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.memory.digest import RequestDigests
from harness.memory.image import Flags
from harness.memory.record import Accept, MigrationRecord
from harness.memory.walk import FreeWalk, to_pages
from harness.verdict.case import JudgeInput
from harness.verdict.log import replay_record

#: Content, and the eight bytes that say where it belongs.
FULL_PAGE = 4104
ZERO_PAGE = 9
ZERO_PAGE_MULTIFD = 8

Witness = Literal["none", "module", "walk"]
Instant = Literal["request", "start", "switch-over"]


@dataclass(frozen=True, eq=False)
class BlockPages:
    """What the floor needs to know of one migrated block.

    ``zero``: which pages held nothing at the instant; None for a block that
    nobody looked into.  ``free``: which were free by the witness.  ``reported``
    and ``cleared``: the guest's first accepted answer, and what of it was still
    unsent.  ``sent``: sent at least once.  ``ever_reported``: in any answer, or
    hinted.
    """

    pages: int
    zero: Flags | None
    free: Flags | None = None
    reported: Flags | None = None
    cleared: Flags | None = None
    sent: Flags | None = None
    ever_reported: Flags | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Where the bytes of one migration went.  None: cannot be told from what is known."""

    sent: int
    floor: int
    floor_by: Witness
    floor_at: Instant
    head: int
    """Free pages that were sent before the answer came."""
    again: int | None
    """Pages sent a second time and more often."""
    unreported: int | None
    """Free by the witness, but in no answer; needs a witness other than the answers."""
    rest: int
    """Whatever is left: protocol, device state, pages that changed between the floor's
    instant and their sending. Negative where less than the floor was sent."""

    @property
    def sent_over_floor(self) -> float:
        """(sent - head) / floor: 1 is perfect, whatever the time the answer took."""
        return (self.sent - self.head) / self.floor if self.floor else float("inf")


def _cost(count: int, zero: int, zero_page: int) -> int:
    return (count - zero) * FULL_PAGE + zero * zero_page


def floor_of(blocks: Sequence[BlockPages], *, multifd: bool = False) -> int:
    """The least number of bytes for these pages.

    A block that nobody looked into counts as zero pages: the floor must never be
    raised by what was not seen, since that would flatter what is compared with it.
    """
    zero_page = ZERO_PAGE_MULTIFD if multifd else ZERO_PAGE
    total = 0
    for block in blocks:
        if block.zero is None:
            total += block.pages * zero_page
            continue
        zero, count = block.zero, block.pages
        if block.free is not None:
            used = ~block.free
            zero, count = zero & used, int(used.sum())
        total += _cost(count, int(zero.sum()), zero_page)
    return total


def head_of(blocks: Sequence[BlockPages], *, multifd: bool = False) -> int:
    """The bytes of free pages that had been sent when the first answer was applied.

    Those are the pages that it reported and did not clear: their dirty bit was
    down already, as they had been sent.  What the witness does not call free is
    in the floor, and is not counted twice.
    """
    zero_page = ZERO_PAGE_MULTIFD if multifd else ZERO_PAGE
    total = 0
    for block in blocks:
        if block.reported is not None and block.cleared is not None and block.zero is not None:
            early = block.reported & ~block.cleared
            if block.free is not None:
                early = early & block.free
            total += _cost(int(early.sum()), int((early & block.zero).sum()), zero_page)
    return total


def split(
    sent: int,
    blocks: Sequence[BlockPages],
    *,
    floor_by: Witness,
    floor_at: Instant,
    pages_sent: int | None = None,
    multifd: bool = False,
) -> Account:
    """Account for the bytes that were sent.

    ``sent`` is QEMU's ``ram.transferred``; ``pages_sent`` its ``normal`` plus
    ``duplicate`` (zero pages are duplicates), which counts every sending.  Pages
    sent again are charged as full ones: a page that is sent twice was written in
    between, and is rarely zero.
    """
    floor, head = floor_of(blocks, multifd=multifd), head_of(blocks, multifd=multifd)
    again = unreported = None
    if pages_sent is not None and blocks and all(block.sent is not None for block in blocks):
        once = sum(int(block.sent.sum()) for block in blocks if block.sent is not None)
        again = max(0, pages_sent - once) * FULL_PAGE
    if floor_by == "walk":
        zero_page = ZERO_PAGE_MULTIFD if multifd else ZERO_PAGE
        unreported = 0
        for block in blocks:
            if block.free is not None and block.zero is not None:
                known = block.ever_reported if block.ever_reported is not None else block.reported
                missed = block.free if known is None else block.free & ~known
                unreported += _cost(int(missed.sum()), int((missed & block.zero).sum()), zero_page)
    rest = sent - floor - head - (again or 0) - (unreported or 0)
    return Account(sent, floor, floor_by, floor_at, head, again, unreported, rest)


def account_of(
    case: JudgeInput,
    record: MigrationRecord | None,
    digests: RequestDigests | None = None,
    *,
    sent: int,
    pages_sent: int | None = None,
    multifd: bool = False,
    walk: FreeWalk | None = None,
    walk_at: int | None = None,
) -> Account:
    """Account for one migration with what the run knows.

    ``walk`` is the outside walk at the request ``walk_at`` (0: before the
    migration began), and then says what was free.  Without it, in arm info, the
    guest's own first answer does (``module``); otherwise nobody (``none``).
    Pages are looked at where digests were taken: at that request, else at
    switch-over.
    """
    history = replay_record(case.log, {state.block.name: state.block for state in case.blocks}, case.arm)
    first = history.first if case.arm == "info" else None
    instant = walk_at if walk is not None else first
    zero_then = digests.zero_at(instant) if digests is not None and instant is not None else {}
    ever = _ever_reported(case)
    parts = []
    for state in case.blocks:
        name, block = state.block.name, state.block
        zero = zero_then.get(name, state.zero_on_source)
        seen = history.clearings[name] if first is not None else None
        free = None if seen is None else seen.first_reported
        if walk is not None:
            free = to_pages(walk.free, block.gpa, block.pages)
        if free is not None and state.absent is not None:
            # What is not plugged in costs as little as what is free.
            free = free | state.absent
        parts.append(
            BlockPages(
                block.pages,
                zero,
                free,
                None if seen is None else seen.first_reported,
                None if seen is None else seen.first_cleared,
                state.sent,
                ever.get(name),
            )
        )
    compared = {state.block.name for state in case.blocks}
    for name, block in (record.blocks if record is not None else {}).items():
        if record is not None and name not in compared:
            bits = record.sent.get(name)
            parts.append(BlockPages(block.pages, None, sent=None if bits is None else bits.flags()))
    by: Witness = "walk" if walk is not None else "none" if first is None else "module"
    at: Instant = "switch-over" if not zero_then else "start" if instant == 0 else "request"
    return split(sent, parts, floor_by=by, floor_at=at, pages_sent=pages_sent, multifd=multifd)


def _ever_reported(case: JudgeInput) -> dict[str, Flags]:
    """By block, what was in any answer that was applied, or in any hint."""
    sizes = {state.block.name: state.block.pages for state in case.blocks}
    found: dict[str, Flags] = {}
    for entry in case.log:
        if isinstance(entry, Accept) and entry.block in sizes:
            flags = found.setdefault(entry.block, np.zeros(sizes[entry.block], dtype=np.bool_))
            flags[entry.first : entry.first + entry.reported.pages] |= entry.reported.flags()
    return found
