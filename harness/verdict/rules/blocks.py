# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device's record says about pages that are equal: memory is right, by luck."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.memory.image import Flags
from harness.verdict.block import BlockView
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import block_rule


def _found(view: BlockView, rule: str, flags: Flags, text: str) -> Iterator[Finding]:
    pages, name = np.flatnonzero(flags), view.state.block.name
    if pages.size:
        words = f"{pages.size} pages of {name!r} {text}"
        yield Finding(rule, "record", words, int(pages.size), name, tuple(pages[:10].tolist()))


@block_rule("record", {"write-missed": "an equal page was skipped, and was written since its request"})
def write_missed(view: BlockView) -> Iterator[Finding | Observation]:
    """Pages that are zero on both sides now, were skipped, and were not zero at the request.

    Memory is right.  But if somebody wrote those zeros, the write was missed, and
    that both sides agree is luck.  If the page was given back instead (balloon,
    free page reporting), it is a hole, and nothing was written.
    """
    if view.case.arm != "info":
        return
    there = view.state.zero_on_destination
    written = view.skip & view.clearings.allowed & there & view.known & ~view.unchanged & ~view.differs
    hole = view.state.hole_on_source
    if hole is None:
        yield Observation("changed-yet-equal", int(written.sum()))
        return
    yield Observation("given-back", int((written & hole).sum()))
    text = "were written after the request and not sent again; that both sides hold zeros is luck"
    yield from _found(view, "write-missed", written & ~hole, text)


@block_rule("record", {})
def believed(view: BlockView) -> Iterator[Observation]:
    """Without ``strict``: how many skipped pages rest on the device's own account."""
    if view.case.arm == "info" and not view.case.strict:
        yield Observation("skipped-believed", int((view.proven & view.believed).sum()))


@block_rule(
    "record",
    {"arrived-unsent": "a page is on the destination, and is not zero, though it was never sent"},
)
def arrived_unsent(view: BlockView) -> Iterator[Finding]:
    """Without "never sent" no skip is proven."""
    if view.state.sent is not None:
        flags = ~view.sent & ~view.state.zero_on_destination & ~view.differs
        text = "are on the destination, though they were never sent"
        yield from _found(view, "arrived-unsent", flags, text)


@block_rule(
    "record",
    {"neither-sent-nor-skipped": "an equal page was never sent, and no answer cleared it"},
)
def equal_yet_left_out(view: BlockView) -> Iterator[Finding]:
    """A bit lost in the bitmap, of a page of zeros."""
    known = view.state.sent is not None and (view.state.recorded or view.case.arm != "hint")
    if known:
        flags = ~view.sent & ~view.cleared & ~view.differs & view.state.zero_on_destination
        if view.state.absent is not None:
            flags &= ~view.state.absent
        text = "were neither sent nor skipped; that both sides hold zeros is luck"
        yield from _found(view, "neither-sent-nor-skipped", flags, text)


@block_rule("record", {"sent-unplugged": "a page was sent that is not plugged in (virtio-mem)"})
def sent_unplugged(view: BlockView) -> Iterator[Finding | Observation]:
    """Such a page is no part of the migration: to send it would take memory on both hosts."""
    absent = view.state.absent
    if absent is not None:
        yield Observation("not-plugged-in", int(absent.sum()))
        yield from _found(view, "sent-unplugged", view.sent & absent, "were sent, and are not plugged in")
