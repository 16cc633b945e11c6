# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that the guest has written to: what was acknowledged is there, and every request was answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.guestview.journal import DiskReview
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

JOURNAL: Final = "disk-journal"
UNANSWERED: Final = "disk-unanswered"
FAILED: Final = "disk-error"

#: So many wrong blocks are told one by one.
_TOLD: Final = 4


@rule(
    "guest",
    {JOURNAL: "a block of the guest's disk does not hold what was acknowledged last"},
    needs=(DiskReview,),
)
def journal(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """The image as the host reads it, and what the guest itself has read."""
    review = context.fact(DiskReview)
    yield Observation("disk-requests", review.acknowledged)
    if review.wrong:
        told = "; ".join(block.text for block in review.wrong[:_TOLD])
        more = f" (and {len(review.wrong) - _TOLD} more blocks)" if len(review.wrong) > _TOLD else ""
        yield Finding(JOURNAL, "guest", f"the guest's disk: {told}{more}", len(review.wrong))
    if review.read_bad:
        text = (
            f"the guest has read {review.read_bad} blocks of its disk that were wrong, "
            f"the first is block {review.first_read_bad}"
        )
        yield Finding(JOURNAL, "guest", text, review.read_bad)


@rule(
    "guest",
    {UNANSWERED: "a request of the guest to its disk is never answered"},
    needs=(DiskReview,),
)
def unanswered(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """What was in flight must be answered on the other side."""
    review = context.fact(DiskReview)
    if review.unanswered:
        text = (
            f"{review.unanswered} requests to the guest's disk were not answered "
            f"within {review.patience} s of its time"
        )
        yield Finding(UNANSWERED, "guest", text, review.unanswered)


@rule("guest", {FAILED: "a request of the guest to its disk ends with an error"}, needs=(DiskReview,))
def failed(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """Nothing is wrong with its disk."""
    review = context.fact(DiskReview)
    if review.failed:
        text = f"{review.failed} requests to the guest's disk ended with an error"
        yield Finding(FAILED, "guest", text, review.failed)
