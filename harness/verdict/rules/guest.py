# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own checks, after it was resumed."""

from __future__ import annotations

from collections.abc import Iterator

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.facts import GuestChecks
from harness.verdict.finding import Finding
from harness.verdict.registry import rule


@rule("guest", {"guest-verify": "the guest found pages of its own with wrong content"}, needs=(GuestChecks,))
def verify(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """The pages that it owned throughout."""
    bad = context.fact(GuestChecks).verify_bad
    if bad:
        text = f"the guest found {bad} of its own pages with wrong content"
        yield Finding("guest-verify", "guest", text, bad)


@rule(
    "guest",
    {"guest-checksum": "the checksum over its own pages is not the one that the seed gives"},
    needs=(GuestChecks,),
)
def wrong_checksum(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """The host computes it as well."""
    if context.fact(GuestChecks).checksum_matches is False:
        text = "the checksum of the guest's own pages is not the one that its seed gives"
        yield Finding("guest-checksum", "guest", text)


@rule(
    "guest",
    {"guest-exercise": "pages that the guest allocated after the migration did not keep their content"},
    needs=(GuestChecks,),
)
def exercise(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """All memory that it could allocate."""
    bad = context.fact(GuestChecks).exercise_bad
    if bad:
        text = f"{bad} pages did not keep what the guest wrote to them after the migration"
        yield Finding("guest-exercise", "guest", text, bad)


@rule("guest", {"guest-kernel-log": "the guest's kernel has new warnings in its log"}, needs=(GuestChecks,))
def kernel_log(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """What its kernel noticed."""
    warnings = context.fact(GuestChecks).kernel_warnings
    if warnings:
        text = f"the guest's kernel warns: {warnings[0]}"
        yield Finding("guest-kernel-log", "guest", text, len(warnings))
