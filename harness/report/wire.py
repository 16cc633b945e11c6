# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of ``result.json`` about the migration's stream, as a tap has heard it."""

from __future__ import annotations

from harness.report.part import Part
from harness.verdict.wire import PageList, WireBlock, WireFacts


class ListedPages(Part):
    """Pages of one kind."""

    count: int
    """How many."""
    first: list[int]
    """The first of them, by number in the block."""

    @classmethod
    def of(cls, pages: PageList) -> ListedPages:
        """Build this from the judge's list."""
        return cls(count=pages.count, first=list(pages.first))


class BlockOnWire(Part):
    """One RAMBlock, as it came through the stream."""

    name: str
    """RAMBlock."""
    pages: int
    """How many it has."""
    full: int
    """Sendings of whole pages."""
    zero: int
    """Sendings of pages of zeros."""
    delta: int
    """Sendings of what had changed in a page (XBZRLE)."""
    again: int
    """Pages that came more than once."""
    never: ListedPages
    """Pages that never came."""
    unordered: ListedPages
    """Pages that came by two connections with nothing between them that says which is later: a failure."""
    not_loaded: ListedPages
    """Pages that the destination holds otherwise than the stream brought them last: a failure."""
    stale: ListedPages
    """Pages that came last with other content than the source held at switch-over: a failure."""
    record_only: ListedPages
    """Pages that were sent by the device's record, but not by the stream: a failure."""
    wire_only: ListedPages
    """Pages that were sent by the stream, but not by the device's record: a failure."""

    @classmethod
    def of(cls, block: WireBlock) -> BlockOnWire:
        """Build this from the judge's fact."""
        return cls(
            name=block.name,
            pages=block.pages,
            full=block.full,
            zero=block.zero,
            delta=block.delta,
            again=block.again,
            never=ListedPages.of(block.never),
            unordered=ListedPages.of(block.unordered),
            not_loaded=ListedPages.of(block.not_loaded),
            stale=ListedPages.of(block.stale),
            record_only=ListedPages.of(block.record_only),
            wire_only=ListedPages.of(block.wire_only),
        )


class BytesOnWire(Part):
    """Bytes by kind; they add up to ``total``."""

    total: int
    """All, of all connections."""
    whole: int
    """The contents of whole pages, as they travelled: compressed or not."""
    deltas: int
    """What had changed in pages (XBZRLE)."""
    devices: int
    """The states of devices."""
    rest: int
    """Heads, pages of zeros (nine bytes each, or eight), commands, the description of the devices."""


class RoundOnWire(Part):
    """Sendings of pages of one round."""

    full: int
    """Whole."""
    zero: int
    """As zeros."""
    delta: int
    """As what had changed."""


class PaceOnWire(Part):
    """How fast the source sent before it stopped its guest."""

    bytes: int
    """What had come by then."""
    seconds: float
    """From the migration's setup to the last stop of the guest."""
    limit: int
    """Bytes a second, by the scenario."""
    left: int | None = None
    """Bytes that the limit of the pause leaves for after the stop; null: nothing can be said."""


class WireReport(Part):
    """The stream of the judged migration."""

    bytes: BytesOnWire
    """What came, by kind."""
    unread: str | None
    """Why nothing but bytes is known; null: the stream was read."""
    memory_sections: int
    """How often memory came in it, setup and end included."""
    rounds: list[RoundOnWire]
    """Round by round; the hundredth has those of all after it."""
    blocks: list[BlockOnWire]
    """Every RAMBlock that it announces."""
    pace: PaceOnWire | None = None
    """Against `migration.bandwidth`; null: there is none, or the script or postcopy changes it."""

    @classmethod
    def of(cls, facts: WireFacts) -> WireReport:
        """Build this from the judge's facts."""
        size, pace = facts.bytes, facts.pace
        known = size.whole + size.deltas + size.devices
        return cls(
            bytes=BytesOnWire(
                total=size.total,
                whole=size.whole,
                deltas=size.deltas,
                devices=size.devices,
                rest=size.total - known,
            ),
            unread=facts.unread,
            memory_sections=facts.memory_sections,
            rounds=[RoundOnWire(full=one.full, zero=one.zero, delta=one.delta) for one in facts.rounds],
            blocks=[BlockOnWire.of(block) for block in facts.blocks],
            pace=PaceOnWire(bytes=pace.bytes, seconds=pace.seconds, limit=pace.limit, left=pace.left)
            if pace
            else None,
        )
