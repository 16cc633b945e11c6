# SPDX-License-Identifier: GPL-2.0-or-later
"""The second witness, the outside walk, against the guest's answers."""

from __future__ import annotations

from collections.abc import Iterator

from harness.memory.walk import PageStanding
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule
from harness.verdict.witness import testimony_of


@rule(
    "witness",
    {
        "reported-though-owned": "an answer reported pages that the workload owned from the request to the "
        "answer",
        "reported-undecided": "on a quiet guest, an answer reported pages that were on no free list at "
        "either end, and did not change",
        "witnesses-disagree": "on a quiet guest, an answer left out what was free at both ends, or reported "
        "what was on per-cpu lists or isolated",
    },
)
def outside_walk(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """What the walks at request and answer say to each reported page."""
    heard = context.of(testimony_of)
    yield from heard.findings
    undecided = heard.standing.get(PageStanding.UNDECIDED.label, 0)
    if undecided:
        yield Observation("reported-undecided", undecided)
