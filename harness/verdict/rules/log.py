# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's log against the protocol, and against the device's own counters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.log import replay_of
from harness.verdict.registry import rule


@rule(
    "record",
    {
        "accept-without-request": "an answer was applied to an id that was never asked",
        "accept-of-older-request": "an answer was applied after a newer request had left",
        "accept-after-sync": "an answer was applied in another sync generation than its request's",
        "cleared-not-reported": "a dirty bit was cleared that the guest had not reported",
        "answer-outside-window": "a page was reported that the request did not ask for",
        "request-id-reused": "the ids do not tell requests apart: one was used twice",
        "request-id-zero": "the ids do not tell requests apart: one is 0, which means none",
        "answer-in-arm-off": "an answer was applied in an arm that has no such mechanism",
        "hint-in-arm-info": "a free page hint was applied in an arm that has no such mechanism",
        "request-in-other-arm": "a request left in an arm that has no such mechanism",
        "skipped-unseen": "pages of a block that nobody compared were skipped",
    },
)
def protocol(_: JudgeInput, context: Context) -> Iterable[Finding]:
    """Every entry of the log, in its order."""
    return context.of(replay_of).findings


@rule("record", {"statistics-disagree": "the device's counters are not the sums of its log"})
def statistics_disagree(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """The device's counters against its log."""
    if case.statistics is None or case.arm != "info":
        return
    history = context.of(replay_of)
    logged = {"skipped": history.cleared, "reported": history.reported, "requests": history.requests_left}
    for key, ours in logged.items():
        said = case.statistics.get(key, ours)
        if key == "requests" and isinstance(said, int):
            # A first look, for which no bit is cleared, is in no log.
            looks = case.statistics.get("looks", 0)
            said -= looks if isinstance(looks, int) else 0
        if said != ours:
            text = f"the device counts {said!r} pages or requests {key}, its log {ours}"
            yield Finding("statistics-disagree", "record", text)
