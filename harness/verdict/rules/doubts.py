# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a run in which nothing is wrong is inconclusive: what was to be tested did not happen."""

from __future__ import annotations

from harness.memory.record import Accept, Request
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.facts import CourseOfRun, GuestChecks, StayedPut
from harness.verdict.pages import page_counts
from harness.verdict.registry import doubt
from harness.verdict.rules.expected_outcome import MigrationNumbers


@doubt()
def nothing_compared(_: JudgeInput, context: Context) -> str | None:
    """No memory, no verdict."""
    if context.of(page_counts).total or context.knows(StayedPut):
        return None
    return "no memory was compared"


@doubt(needs=(GuestChecks,))
def guest_not_asked(_: JudgeInput, context: Context) -> str | None:
    """The guest's own checks, all of them."""
    checks = context.fact(GuestChecks)
    if None in (checks.verify_bad, checks.exercise_bad, checks.kernel_warnings):
        return "memory is right, but the guest was not asked for all of its own checks"
    return None


@doubt()
def nothing_skipped(case: JudgeInput, context: Context) -> str | None:
    """A feature that silently does nothing leaves memory right."""
    wanted = case.expect.skipping if case.expect.skipping is not None else case.arm != "off"
    why = why_nothing_skipped(case, context) if wanted else None
    return None if why is None else f"memory is right, but nothing was skipped: {why}"


def why_nothing_skipped(case: JudgeInput, context: Context) -> str | None:
    """How far arm info or hint came, if nothing came of it; None: something did."""
    left_out = context.of(page_counts).left_out
    nothing = not left_out and not hinted_and_sent(case, left_out) and not unrecorded_hints(case)
    return _why_nothing(case) if nothing and not context.knows(StayedPut) else None


@doubt()
def nothing_reported_where_it_is(case: JudgeInput, _: Context) -> str | None:
    """Of memory that both QEMUs map, some must be reported: else nothing shows that it is let alone."""
    if case.left_where_it_is and case.arm == "info" and not (case.statistics or {}).get("bad-pages"):
        return "memory is right, but of what stays where it is no page was reported"
    return None


@doubt(needs=(CourseOfRun,))
def unexercised(_: JudgeInput, context: Context) -> str | None:
    """A script that was not worked off, an earlier migration that was inconclusive."""
    words = context.fact(CourseOfRun).unexercised
    return f"memory is right, but {'; '.join(words)}" if words else None


@doubt(needs=(MigrationNumbers,))
def too_few_rounds(case: JudgeInput, context: Context) -> str | None:
    """What is lost between rounds shows only where there are some."""
    least, passes = case.expect.rounds_min, context.fact(MigrationNumbers).passes
    if least is not None and passes < least:
        return f"memory is right, but the migration made {passes} passes over it, and {least} were wanted"
    return None


def hinted_and_sent(case: JudgeInput, left_out: int) -> int:
    """Where hints left out nothing in the end: how often one cleared a page's dirty bit.

    The hint has been exercised, then, even if every page was sent: the driver
    allocates what it hints, and with init_on_alloc Linux zeroes it first.  Under
    TCG that write is in the log, and the next sync brings the page back.
    """
    if case.arm != "hint" or left_out:
        return 0
    return sum(entry.cleared.count() for entry in case.log if isinstance(entry, Accept))


def unrecorded_hints(case: JudgeInput) -> int:
    """How many hints a QEMU has taken that keeps no record of them: whether they were exercised, no more."""
    return case.hints_taken or 0 if case.arm == "hint" and not case.log else 0


def _why_nothing(case: JudgeInput) -> str:
    """How far arm info (or hint) came before nothing came of it."""
    if case.statistics and case.statistics.get("refused"):
        return f"the device asked for nothing, as {case.statistics['refused']}"
    if case.arm != "info":
        return f"arm {case.arm} was not exercised"
    if not any(isinstance(entry, Request) for entry in case.log):
        return "no request left"
    if not any(isinstance(entry, Accept) for entry in case.log):
        return "no answer was accepted"
    return "the answers that were accepted named no page that was still to be sent"
