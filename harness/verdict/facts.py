# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes known after the memory was compared: each fact is a class of its own.

A rule says by ``needs`` which facts it reads, and is asked once they are there.
A rule about something new brings a class of its own for it; no other rule, and
nothing here, has to know.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.verdict.finding import Finding


@dataclass(frozen=True, slots=True)
class GuestChecks:
    """What the guest found after it was resumed; None: it was not asked."""

    verify_bad: int | None = None
    """Of the pages that it owned throughout, those with wrong content."""
    exercise_bad: int | None = None
    """Of all memory that it could allocate afterwards, the pages that did not keep their content."""
    kernel_warnings: tuple[str, ...] | None = None
    """New warnings in its kernel's log."""
    checksum_matches: bool | None = None
    """Whether the checksum over its pages is the one that the host computes from the seed."""


@dataclass(frozen=True, slots=True)
class SentOverFloor:
    """How many times the floor was sent: 1 is perfect."""

    ratio: float


@dataclass(frozen=True, slots=True)
class StayedPut:
    """The last migration was not to complete, and has not; the guest is where it was."""

    ended: str
    """How: ``failed`` or ``cancelled``."""
    guest_ended: bool = False
    """Whether the scenario has ended the QEMU that had the guest."""


@dataclass(frozen=True, slots=True)
class CourseOfRun:
    """What the run around the judged migration has shown."""

    found: tuple[Finding, ...] = ()
    """What was wrong: found by the script, or in an earlier one of several migrations."""
    unexercised: tuple[str, ...] = ()
    """What the scenario is about and did not happen, in words."""
