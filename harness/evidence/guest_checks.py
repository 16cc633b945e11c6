# SPDX-License-Identifier: GPL-2.0-or-later
"""After the memory was compared: the guest goes on, and is asked what it thinks of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import libvirt

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.scenario.resolve import ResolvedScenario
from harness.scenario.workloads.answer import Answer, number
from harness.verdict.judge import GuestChecks

#: The guest looks at all of its memory, twice, and may be emulated.
CHECK_SECONDS: Final = 600.0
#: A guest whose memory is known to be wrong is asked, but not waited for.
WRONG_GUEST_SECONDS: Final = 30.0
#: Its first answer on the new host; it only has to go on.  Emulated, on a busy machine, it takes a second.
FIRST_ANSWER_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What the guest answered, for the judge and for the report."""

    checks: GuestChecks
    verify: Mapping[str, object]
    exercise: Mapping[str, object]
    kernel_log: Mapping[str, object]
    counters: Mapping[str, object]


def resume(
    domain: libvirt.virDomain,
    control: GuestControl,
    host: str,
    events: EventStream,
    wake: Callable[[], None] | None = None,
) -> None:
    """Resume the guest on ``host``, and wait for its first answer there.  Raises :class:`GuestLost`.

    ``wake``: what has one that is suspended to its memory go on.
    """
    deadline = Deadline(FIRST_ANSWER_SECONDS, "the guest's first answer after it moved")
    with events.step("resume"):
        try:
            domain.resume()
        except libvirt.libvirtError as error:
            if not domain.connect().isAlive():
                raise MachineryError(
                    f"the {host} cannot resume the guest: {error.get_error_message()}"
                ) from error
            # The guest has moved, and does not go on: that is the migration's end, and none of the machine's.
            raise GuestLost(f"the {host} cannot resume the guest: {error.get_error_message()}") from error
        if wake is not None:
            wake()
        control.rebind(host)
        control.call("ping", deadline=deadline)


def check_guest(control: GuestControl, events: EventStream) -> int:
    """Have a guest that goes on migrating look at the pages that it owns: how many are wrong."""
    deadline = Deadline(CHECK_SECONDS, "the guest's look at its pages")
    with events.step("verify") as step:
        verify = control.call("verify", deadline=deadline)
        step.note(pages=verify["pages"], bad=verify["bad"])
    return number(verify, "bad")


def check(
    control: GuestControl,
    resolved: ResolvedScenario,
    since: int,
    events: EventStream,
    *,
    seconds: float = CHECK_SECONDS,
) -> Answers:
    """Have the guest check itself, within ``seconds``.

    ``since``: the last record of its kernel's log that came before the migration.
    Raises :class:`GuestLost` if it does not answer.
    """
    deadline = Deadline(seconds, "the guest's own checks")
    workload = resolved.scenario.workload
    with events.step("verify") as step:
        # The churn goes on until here: what it owns is known by the number of its steps.
        control.call("stop", deadline=deadline)
        verify = control.call("verify", deadline=deadline)
        step.note(pages=verify["pages"], bad=verify["bad"])
    with ThreadPoolExecutor(1, "formula") as pool, events.step("exercise") as step:
        # The host computes what the guest must have found while the guest is busy.
        answer = Answer.read(verify)
        expected = pool.submit(workload.matches, answer, resolved.seed, resolved.noise_bytes)
        exercise = control.call("exercise", resolved.seed, deadline=deadline)
        step.note(pages=exercise["pages"], bad=exercise["bad"])
        matches = expected.result()
    kernel_log = control.call("kmsg", since, deadline=deadline)
    counters = control.call("stats", deadline=deadline)
    checks = GuestChecks(
        verify_bad=workload.wrong(answer),
        # A fresh page that is not zero was given out by a kernel that believes it is.
        exercise_bad=number(exercise, "bad") + number(exercise, "nonzero"),
        kernel_warnings=_trouble(kernel_log),
        checksum_matches=matches,
    )
    return Answers(checks, verify, exercise, kernel_log, counters)


def _trouble(log: Mapping[str, object]) -> tuple[str, ...]:
    """The warnings; those that are counted and not quoted are warnings all the same."""
    if not log.get("read"):
        raise MachineryError("the guest cannot read its kernel's log")
    lines = log.get("lines")
    quoted = tuple(str(line) for line in lines) if isinstance(lines, list) else ()
    return quoted + ("(not quoted)",) * (number(log, "count") - len(quoted))
