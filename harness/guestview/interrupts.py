# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains of a guest's, each of which waits for one interrupt after the other: what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.guestview.report import Report

#: In the order of ``vm-images/guest/workloads/interrupts.c``, by what each waits for.
CHAINS: Final = ("a timer", "its disk", "its disk, on another processor", "another processor")


@dataclass(frozen=True, slots=True)
class InterruptReview:
    """What came of them, for the verdict."""

    stuck: tuple[str, ...]
    """What is waited for, and does not come any more."""
    failed: tuple[str, ...]
    steps: int
    longest_ms: int
    """The longest time from one to the next, by the guest's clock."""
    patience: int
    """Seconds of the guest's time after which a chain counts as stuck."""


def review(report: Report, patience: int) -> InterruptReview:
    """From the guest's report.  Raises :class:`harness.errors.MachineryError` if something is missing."""
    count = len(CHAINS)
    stuck, failed = report.numbers("stuck", count), report.numbers("failed", count)
    return InterruptReview(
        stuck=tuple(name for name, is_stuck in zip(CHAINS, stuck, strict=True) if is_stuck),
        failed=tuple(f"{name} (error {code})" for name, code in zip(CHAINS, failed, strict=True) if code),
        steps=sum(report.numbers("steps", count)),
        longest_ms=max(report.numbers("longest_us", count)) // 1000,
        patience=patience,
    )
