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
            not_loaded=ListedPages.of(block.not_loaded),
            stale=ListedPages.of(block.stale),
            record_only=ListedPages.of(block.record_only),
            wire_only=ListedPages.of(block.wire_only),
        )


class WireReport(Part):
    """The stream of the judged migration."""

    bytes: int
    """Its size, from its head to its end."""
    memory_sections: int
    """How often memory came in it, setup and end included."""
    blocks: list[BlockOnWire]
    """Every RAMBlock that it announces."""

    @classmethod
    def of(cls, facts: WireFacts) -> WireReport:
        """Build this from the judge's facts."""
        blocks = [BlockOnWire.of(block) for block in facts.blocks]
        return cls(bytes=facts.bytes, memory_sections=facts.memory_sections, blocks=blocks)
