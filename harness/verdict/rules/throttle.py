# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of a guest that QEMU slows down: auto-converge, dirty-limit."""

from __future__ import annotations

from collections.abc import Iterator

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import announce, rule
from harness.verdict.throttle import Throttling

announce(
    "outcome",
    {
        "throttle-kept": "a QEMU slows the guest down after the migration for which it did, or before the "
        "next one can have begun to"
    },
)


@rule(
    "expectation",
    {"throttle-percent-min": "auto-converge slowed the guest down less than `expect.throttle_percent_min`"},
    needs=(Throttling,),
)
def throttle_percent_min(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """By QEMU's own word on the last migration."""
    least, most = case.expect.throttle_percent_min, context.fact(Throttling).most_percent
    if least is not None and most < least:
        text = f"the guest's vCPUs slept for at most {most} % of the time, expected at least {least} %"
        yield Finding("throttle-percent-min", "expectation", text)
