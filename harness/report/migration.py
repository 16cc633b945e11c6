# SPDX-License-Identifier: GPL-2.0-or-later
"""What a result says of the migration itself: the protocol, bytes, time, its file, the switch to postcopy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from harness.report.part import Part
from harness.verdict.floor import Account


class Protocol(Part):
    """The device's counters of this migration."""

    requests: int
    """Requests that left."""
    responses: int
    """Answers that arrived whole."""
    stale: int
    """Chunks dropped because a newer request or a sync had come."""
    invalid: int
    """Chunks that the device could not make sense of."""
    chunks: int
    """Chunks that arrived."""
    reported: int
    """Pages reported free in what was applied; a page counts each time."""
    skipped: int
    """Dirty bits cleared; a page that is dirtied and cleared again counts twice."""
    sent_before: int
    """Pages reported that had been sent already, and were let alone."""
    fetched: int = 0
    """Pages that were left out, and sent after all: in postcopy the destination asked for them; 0 in a
    result of before these were counted."""
    dropped: int
    """Chunks beyond what an answer may hold."""
    bad_pages: int
    """Reported frames that are no memory of this migration."""
    refused: str
    """Why the device asked for nothing at all; empty if it asked."""

    @classmethod
    def of(cls, counters: Mapping[str, object]) -> Protocol:
        """Build this from the device's statistics, which have QEMU's names."""

        def number(key: str) -> int:
            value = counters.get(key, 0)
            return value if isinstance(value, int) else 0

        return cls(
            requests=number("requests"),
            responses=number("answers"),
            stale=number("stale"),
            invalid=number("invalid"),
            chunks=number("chunks"),
            reported=number("reported"),
            skipped=number("skipped"),
            sent_before=number("sent-before"),
            fetched=number("fetched"),
            dropped=number("dropped"),
            bad_pages=number("bad-pages"),
            refused=str(counters.get("refused", "")),
        )


class Bytes(Part):
    """What was sent, what had to be sent, and where the difference went."""

    sent: int
    """QEMU's ram.transferred."""
    full_pages: int
    """Sendings of whole pages."""
    zero_pages: int
    """Sendings of pages of zeros."""
    floor: int
    """What had to be sent: 4104 for each page that is neither free nor zero, 9 (multifd: 8)
    for each zero page, nothing for a free one."""
    floor_by: Literal["none", "module", "walk"]
    """Who says what is free: nobody, the guest's own first answer, or a walk from outside."""
    floor_at: Literal["request", "start", "switch-over"]
    """The instant at which pages were looked at for it."""
    sent_over_floor: float | None
    """(sent - head) / floor."""
    head: int
    """Free pages that were sent before the first answer came."""
    again: int | None
    """Pages sent more than once."""
    unreported: int | None
    """Free pages that no answer reported; only a walk from outside can tell."""
    rest: int
    """sent less everything above."""

    @classmethod
    def of(cls, account: Account, *, full_pages: int, zero_pages: int) -> Bytes:
        """Build this from the account, and QEMU's ``normal`` and ``duplicate``."""
        return cls(
            sent=account.sent,
            full_pages=full_pages,
            zero_pages=zero_pages,
            floor=account.floor,
            floor_by=account.floor_by,
            floor_at=account.floor_at,
            sent_over_floor=round(account.sent_over_floor, 4) if account.floor else None,
            head=account.head,
            again=account.again,
            unreported=account.unreported,
            rest=account.rest,
        )


class Time(Part):
    """How long the migration took, in milliseconds, by QEMU's clock."""

    total_ms: int
    """From start to completion; includes the holds."""
    downtime_ms: int
    """The guest's pause at switch-over, as QEMU counts it."""
    setup_ms: int
    """Before the first page."""
    held_ms: int
    """Of total_ms: the guest stood still for the oracle's digests."""


class FileReport(Part):
    """The file through which the guest went, of the last migration that had one."""

    way: str
    """migration.to: file, save, savevm or background-snapshot."""
    path: str
    """Where it was; it is still there if the scenario says so (migration.file.keep)."""
    bytes: int | None
    """Its size; null: it did not become whole."""
    allocated: int | None
    """What it takes on its file system: less than its size where it has holes."""
    write_ms: int | None
    """Milliseconds from the command that begins it to its end."""
    restore_ms: int | None
    """Milliseconds in which the destination has read it; null: it did not take it."""
    used_memory: bool
    """Whether the memory into which it was read was not zero."""
    spoilt: str
    """What was done to it before, in words; empty: nothing."""
    written_meanwhile: int | None
    """Of a background snapshot: pages that the guest had changed by the time that the file was whole."""


class PostcopyPages(Part):
    """Pages by the way they came; a page counts each time that it is sent."""

    precopy: int
    """Before the switch."""
    postcopy: int
    """After it."""
    requests: int
    """Requests of the destination's that have reached the source: for pages on which somebody waited. One
    counts even where its page was on its way already."""


class Postcopy(Part):
    """A migration that was switched to postcopy."""

    guest: Literal["paused", "runs"]
    """Whether the guest ran on the destination from the switch on."""
    source_statuses: list[str]
    """QEMU's statuses on the source, in order."""
    destination_statuses: list[str]
    """QEMU's statuses on the destination, in order."""
    ms: int
    """From the switch to the end, on the source."""
    breaks: int
    """How often the connection broke."""
    pages: PostcopyPages | None
    """null: QEMU could not be asked in the end."""
    precopy_bytes: int | None
    """Sent before the switch."""
    downtime_bytes: int | None
    """Sent while the guest stood still."""
    postcopy_bytes: int | None
    """Sent after it."""
