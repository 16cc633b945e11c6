# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clocks: they never go back, gain no more than the pauses, and its timers fire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.guestview.clocks import ClockReview, Span
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

BACK: Final = "clock-back"
JUMPS: Final = "clock-jumps"
RTC: Final = "rtc-jumps"
LATE: Final = "timer-late"


@rule("guest", {BACK: "a clock of the guest went back"}, needs=(ClockReview,))
def back(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """From one reading to the next."""
    found = context.fact(ClockReview).back
    if found:
        how = (
            f"{name} by {f'{much:.0f} ticks' if name == 'tsc' else f'{much:.3f} s'}" for name, much in found
        )
        yield Finding(BACK, "guest", f"the guest's clocks went back: {', '.join(how)}", len(found))


@rule(
    "guest",
    {JUMPS: "a clock of the guest lost time, or gained more than it was paused"},
    needs=(ClockReview,),
)
def jumps(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """From before the migration to after it, by the host's clock."""
    review = context.fact(ClockReview)
    yield Observation("timers-fired", review.fired)
    if review.source != review.source_after:
        yield Observation("clocksource-changed", 1)
    wrong = [span for span in review.spans if not span.right]
    if wrong:
        told = "; ".join(map(_told, wrong))
        text = f"the guest's clocks (of {review.source}) are not the host's: {told}"
        yield Finding(JUMPS, "guest", text, len(wrong))


@rule("guest", {RTC: "the guest's real-time clock is not the host's"}, needs=(ClockReview,))
def rtc(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """It goes on while the guest stands."""
    span = context.fact(ClockReview).rtc
    if span is not None and not span.right:
        yield Finding(RTC, "guest", f"the guest's real-time clock is not the host's: {_told(span)}")


@rule("guest", {LATE: "a timer of the guest fired too late"}, needs=(ClockReview,))
def late(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """By the guest's own clock, less what QEMU's threads waited for a processor of the host."""
    review = context.fact(ClockReview)
    yield Observation("timer-late-ms", round(review.late * 1e3))
    if review.late <= review.late_most:
        return
    yield Observation("timer-waited-ms", round(review.waited * 1e3))
    if review.late - review.waited > review.late_most:
        text = (
            f"a timer of the guest fired {review.late:.3f} s late by its own clock; it may be "
            f"{review.late_most:.1f} s, and the host had QEMU wait for {review.waited:.3f} s of that at most"
        )
        yield Finding(LATE, "guest", text)


def _told(span: Span) -> str:
    return f"{span.name} went on by {span.seconds:.3f} s instead of {span.least:.3f} to {span.most:.3f} s"
