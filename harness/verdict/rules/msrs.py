# SPDX-License-Identifier: GPL-2.0-or-later
"""Model specific registers of the guest's processors, as the guest reads them before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.guestview.msrs import RegisterReview
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

MSR_LOST: Final = "msr-lost"
#: How many are named.
_NAMED: Final = 4


@rule(
    "guest",
    {MSR_LOST: "a model specific register of the guest's processors is not what it was before the migration"},
    needs=(RegisterReview,),
)
def msrs_lost(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """Only of those that no kernel changes while it runs."""
    review = context.fact(RegisterReview)
    yield Observation("msrs-compared", review.read)
    if review.lost:
        told = "; ".join(map(str, review.lost[:_NAMED]))
        rest = len(review.lost) - _NAMED
        more = f" and {rest} more" if rest > 0 else ""
        text = f"the guest's model specific registers have changed: {told}{more}"
        yield Finding(MSR_LOST, "guest", text, len(review.lost))
