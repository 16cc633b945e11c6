# SPDX-License-Identifier: GPL-2.0-or-later
"""After the memory was judged: the guest goes on, and is asked what it thinks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import libvirt

from harness.errors import MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.verdict import GuestChecks

#: The guest looks at all of its memory, twice, and may be emulated.
CHECK_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What the guest answered, for the judge and for the report."""

    checks: GuestChecks
    verify: Mapping[str, object]
    exercise: Mapping[str, object]
    kernel_log: Mapping[str, object]


def check(domain: libvirt.virDomain, control: GuestControl, seed: int, events: EventStream) -> Answers:
    """Resume the guest on the destination and have it check itself."""
    deadline = Deadline(CHECK_SECONDS, "the guest's own checks")
    with events.step("resume"):
        try:
            domain.resume()
        except libvirt.libvirtError as error:
            raise MachineryError(f"the destination cannot resume the guest: {error.get_error_message()}") from error
        control.call("ping", deadline=deadline.sub(60, "the guest's first answer after the migration"))
    control.call("stop", deadline=deadline)
    with events.step("verify") as step:
        verify = control.call("verify", deadline=deadline)
        step.note(pages=verify.get("pages"), bad=verify.get("bad"))
    with events.step("exercise") as step:
        exercise = control.call("exercise", str(seed), deadline=deadline)
        step.note(pages=exercise.get("pages"), bad=exercise.get("bad"))
    kernel_log = control.call("kmsg", deadline=deadline)
    checks = GuestChecks(
        # What the churn found while it ran counts as well: it covers its own tracks.
        verify_bad=_number(verify, "bad") + _number(verify, "live_bad", 0),
        # A fresh page that is not zero was given out by a kernel that believes it is.
        exercise_bad=_number(exercise, "bad") + _number(exercise, "nonzero", 0),
        kernel_warnings=_lines(kernel_log),
    )
    return Answers(checks, verify, exercise, kernel_log)


def _number(answer: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = answer.get(key, default)
    if not isinstance(value, int):
        raise MachineryError(f"the guest's answer has no number {key!r}: {dict(answer)!r}")
    return value


def _lines(answer: Mapping[str, object]) -> tuple[str, ...]:
    lines, count = answer.get("lines", []), _number(answer, "count")
    found = tuple(str(line) for line in lines) if isinstance(lines, list) else ()
    # A warning that is counted but not quoted is a warning all the same.
    return found or tuple("(not quoted)" for _ in range(count))
