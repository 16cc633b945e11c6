# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection and datagrams of a guest go on where it is now, with not a byte wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.guestview.stream import StreamReview
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

STREAM: Final = "stream-broken"
DATAGRAMS: Final = "datagrams-broken"


@rule(
    "guest",
    {STREAM: "a TCP connection of the guest broke, carried a wrong byte, or did not go on"},
    needs=(StreamReview,),
)
def stream(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """What both of its ends tell."""
    review = context.fact(StreamReview)
    yield Observation("stream-bytes", review.bytes)
    yield Observation("stream-gap-ms", review.gap_ms)
    if review.broken:
        text = f"a TCP connection with the guest: {'; '.join(review.broken)}"
        yield Finding(STREAM, "guest", text, len(review.broken))


@rule(
    "guest",
    {DATAGRAMS: "datagrams to the guest or from it were wrong, or none came any more"},
    needs=(StreamReview,),
)
def datagrams(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """Some may be lost, as datagrams may."""
    review = context.fact(StreamReview)
    yield Observation("datagrams-lost", review.datagrams_lost)
    yield Observation("datagram-gap-ms", review.datagram_gap_ms)
    if review.datagrams_broken:
        text = f"datagrams with the guest: {'; '.join(review.datagrams_broken)}"
        yield Finding(DATAGRAMS, "guest", text, len(review.datagrams_broken))
