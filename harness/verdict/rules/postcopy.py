# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of a migration that was switched to postcopy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.memory.image import Flags
from harness.verdict.block import BlockView
from harness.verdict.finding import Finding
from harness.verdict.registry import block_rule, page_rule


@page_rule(
    "lost-since-switch",
    "were the workload's at the switch to postcopy, and hold neither that nor what a later step of it wrote",
    before="differs-though-sent",
)
def lost_since_switch(view: BlockView) -> Flags:
    """A guest that runs on the destination writes its pages anew; it never takes a step back."""
    lost = view.state.lost
    return lost if lost is not None else np.zeros(view.state.block.pages, dtype=np.bool_)


@block_rule(
    "memory",
    {
        "source-changed-since-switch": "pages of the source changed when the guest had left it (switched to "
        "postcopy, or with its memory handed over): they are not what the guest had"
    },
)
def source_changed_since_switch(view: BlockView) -> Iterator[Finding]:
    """The source stands from the switch on; it is all that the guest has."""
    changed = view.state.changed_since_switch
    pages = np.flatnonzero(changed) if changed is not None else np.empty(0, dtype=np.int64)
    if pages.size:
        name = view.state.block.name
        words = f"{len(pages)} pages of {name!r} changed on the source when the guest had left it"
        first = tuple(pages[:10].tolist())
        yield Finding("source-changed-since-switch", "memory", words, len(pages), name, first)
