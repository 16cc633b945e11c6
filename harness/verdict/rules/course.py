# SPDX-License-Identifier: GPL-2.0-or-later
"""What the run around the judged migration has found: its script, and the migrations before."""

from __future__ import annotations

from collections.abc import Iterable

from harness.scenario.actions.base import rules_of_actions
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.facts import CourseOfRun
from harness.verdict.finding import Finding
from harness.verdict.registry import announce, rule

announce(
    "guest",
    {
        "guest-pages": "pages that a script took and wrote have wrong contents",
        "device-silent": "a device of the scenario's does not answer the guest on its new host",
        "device-wrong": "a device of the scenario's does not what it must, or not as before",
    },
)
announce(
    "outcome",
    {
        "suspend-lost": "a guest that was suspended to its memory is not suspended any more when it goes on",
    },
)
announce(
    "expectation",
    {
        "qmp-frozen": "a command was not answered while the network was down",
        "migration-ended": "a migration ended otherwise than the scenario says",
        "guest-undone": "a guest that has moved cannot do what the script has it do, or does not come to it: "
        "see a vCPU that was plugged in, fill its balloon, take a driver",
        "migration-reason": "a migration that was given up ended with other words than the scenario says",
    },
)


# A command of ``guest.commands`` is judged as one of a script's.
announce("expectation", rules_of_actions)


@rule("expectation", {}, needs=(CourseOfRun,), stage="run")
def course(_: JudgeInput, context: Context) -> Iterable[Finding]:
    """In the order in which it was found."""
    return context.fact(CourseOfRun).found
