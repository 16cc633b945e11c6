# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts that a guest waits for while it moves: each of them comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.guestview.interrupts import InterruptReview
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

LOST: Final = "interrupt-lost"


@rule(
    "guest",
    {LOST: "a guest that waits for one interrupt after the other waits for ever"},
    needs=(InterruptReview,),
)
def interrupt_lost(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """Each chain of the workload's has to go on."""
    review = context.fact(InterruptReview)
    yield Observation("interrupts", review.steps)
    yield Observation("interrupt-gap-ms", review.longest_ms)
    for name in review.stuck:
        yield Finding(LOST, "guest", f"the guest waits for {name}, and was not woken for {review.patience} s")
    for name in review.failed:
        yield Finding(LOST, "guest", f"the guest waits for {name} no more")
