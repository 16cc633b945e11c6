# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that a wrong page can break, in the order in which they are asked."""

from __future__ import annotations

import numpy as np

from harness.memory.image import Flags
from harness.verdict.block import BlockView
from harness.verdict.registry import page_rule


@page_rule("differs-though-sent", "were sent, and differ")
def differs_though_sent(view: BlockView) -> Flags:
    """A write that the dirty log missed, or a page that was corrupted on its way."""
    return view.sent


@page_rule(
    "skipped-by-unacceptable-answer",
    "were skipped because of an answer that should not have been applied",
)
def skipped_by_unacceptable_answer(view: BlockView) -> Flags:
    """A stale answer; bits cleared that were not reported."""
    return view.skip & ~view.clearings.allowed


@page_rule("skipped-but-not-zero-on-destination", "were skipped, and are not zero on the destination")
def skipped_but_not_zero(view: BlockView) -> Flags:
    """A page that had been sent; a destination that did not start from zeros."""
    return view.skip & ~view.state.zero_on_destination


@page_rule(
    "skipped-though-owned",
    "were skipped, though the workload owned them from the request to the answer",
)
def skipped_though_owned(view: BlockView) -> Flags:
    """A driver that reports pages in use."""
    return view.skip & view.owned


@page_rule("skipped-without-digest", "were skipped, but nothing is known of what they held at the request")
def skipped_without_digest(view: BlockView) -> Flags:
    """The hold did not happen: nothing can be proven."""
    return view.skip & ~view.known


@page_rule("skipped-but-changed-since-request", "were skipped, though they were written after the request")
def skipped_but_changed(view: BlockView) -> Flags:
    """The log was armed late, or in part; bits were cleared after a sync had consumed the write."""
    return view.skip & ~view.unchanged


@page_rule("neither-sent-nor-skipped", "were neither sent nor skipped")
def neither_sent_nor_skipped(view: BlockView) -> Flags:
    """A bit lost in the bitmap."""
    return np.full(view.state.block.pages, view.state.sent is not None)


@page_rule("differs-not-skipped", "differ, and were not skipped")
def differs_not_skipped(view: BlockView) -> Flags:
    """Arms off and hint, with a QEMU that keeps no record."""
    return np.ones(view.state.block.pages, dtype=np.bool_)
