# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenario demands of arm info (``expect``); the other arms are there to be compared with."""

from __future__ import annotations

from collections.abc import Iterator

from harness.memory.record import Request
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.facts import SentOverFloor
from harness.verdict.finding import Finding
from harness.verdict.pages import page_counts
from harness.verdict.registry import rule
from harness.verdict.rules.doubts import why_nothing_skipped


@rule("expectation", {"nothing-skipped": "`expect.skipping` is true, and no page was skipped, or hinted"})
def something_skipped(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """A feature that silently does nothing leaves memory right."""
    if case.expect.skipping and case.arm != "off":
        why = why_nothing_skipped(case, context)
        if why is not None:
            yield Finding("nothing-skipped", "expectation", f"nothing was skipped: {why}")


@rule("expectation", {"skipped-percent-min": "fewer pages were skipped than `expect.skipped_percent_min`"})
def skipped_percent_min(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Of all compared pages."""
    least, percent = case.expect.skipped_percent_min, context.of(page_counts).skipped_percent
    if case.arm == "info" and least is not None and percent < least:
        text = f"{percent:.1f} % of all pages were skipped, expected at least {least:g} %"
        yield Finding("skipped-percent-min", "expectation", text)


@rule("expectation", {"skipped-percent-max": "more pages were skipped than `expect.skipped_percent_max`"})
def skipped_percent_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Of all compared pages."""
    most, percent = case.expect.skipped_percent_max, context.of(page_counts).skipped_percent
    if case.arm == "info" and most is not None and percent > most:
        text = f"{percent:.1f} % of all pages were skipped, expected at most {most:g} %"
        yield Finding("skipped-percent-max", "expectation", text)


@rule(
    "expectation", {"refused": "the device's reason for asking nothing does not have `expect.refused` in it"}
)
def refused(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """The device asks for nothing, and says why."""
    words = case.expect.refused
    said = str((case.statistics or {}).get("refused") or "")
    if case.arm == "info" and words is not None and words not in said:
        text = f"the device's reason for asking nothing is {said!r}, expected {words!r} in it"
        yield Finding("refused", "expectation", text)


@rule(
    "expectation",
    {"sent-over-floor-max": "more was sent, by the floor, than `expect.sent_over_floor_max`"},
    needs=(SentOverFloor,),
)
def sent_over_floor_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """The floor is what had to be sent."""
    ratio, limit = context.fact(SentOverFloor).ratio, case.expect.sent_over_floor_max
    if case.arm == "info" and limit is not None and ratio > limit:
        text = f"what was sent is {ratio:.3f} times the floor, expected at most {limit:g} times"
        yield Finding("sent-over-floor-max", "expectation", text)


@rule("expectation", {"requests-min": "the guest was asked less often than `expect.requests_min`"})
def requests_min(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """Requests that left, answered or not."""
    asked, least = _asked(case), case.expect.requests_min
    if case.arm == "info" and least is not None and asked < least:
        text = f"the guest was asked {asked} times, expected at least {least}"
        yield Finding("requests-min", "expectation", text)


@rule("expectation", {"requests-max": "the guest was asked more often than `expect.requests_max`"})
def requests_max(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """Requests that left, answered or not."""
    asked, most = _asked(case), case.expect.requests_max
    if case.arm == "info" and most is not None and asked > most:
        text = f"the guest was asked {asked} times, expected at most {most}"
        yield Finding("requests-max", "expectation", text)


def _asked(case: JudgeInput) -> int:
    return sum(isinstance(entry, Request) for entry in case.log)
