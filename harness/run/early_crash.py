# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that crashes before its guest is migrated: as the guest boots, or as its workload is loaded.

A guest that is lost is an error, as a rule: nobody knows why.  But a QEMU that ends by a signal of its own
making, or by an assertion of its own, is wrong whatever it did just then.  That is a verdict
(``qemu-crashed``), of a run without a migration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container
from dataclasses import replace
from typing import Final

from harness.errors import DeadlineExceeded, GuestLost
from harness.events import Deadline, Event, EventStream
from harness.evidence.outcomes import process_end, reports_in
from harness.hosts.interface import Pair
from harness.hosts.qemu_log import last_words
from harness.plan.plan import RunPlan
from harness.run.findings import Findings, GuestReview
from harness.run.guest import Guest
from harness.scenario.resolve import ResolvedScenario
from harness.verdict.finding import Finding
from harness.verdict.outcome import CRASH_SIGNALS, KIND

#: How long the end of a process may take to be told, once its sockets are closed.
_TOLD_SECONDS: Final = 2.0
#: Of its name the kernel keeps so many characters.
_NAME: Final = 15
#: What QEMU's own programs are called.
_QEMUS: Final = "qemu-system-"


class EarlyCrash(GuestLost):
    """The guest was lost, since its QEMU crashed.  ``finding``: what that means; ``guest``: who it was."""

    def __init__(self, error: GuestLost, finding: Finding, guest: Guest) -> None:
        super().__init__(error.message, last_lines=error.last_lines, command=error.command, hint=error.hint)
        self.finding = finding
        self.guest = guest


def early_crash(
    plan: RunPlan, pair: Pair, events: EventStream, own: Container[int] | None = None
) -> Finding | None:
    """What is wrong with a QEMU that has just ended; None: nothing that it has brought upon itself.

    ``own``: the guest's QEMUs, by their process ids; None: whichever there is, is the guest's.
    """
    qemus = plan.source_qemu, plan.destination_qemu
    names = {(qemu.emulator or qemu.path).name[:_NAME] for qemu in qemus}
    # A wrapper of the user's has another name than the program that it becomes.
    attached = {event.data.get("pid") for event in events.history() if event.kind == "qemu-attached"}
    crashes: list[str] = []

    def crashed(event: Event) -> bool:
        code = event.data.get("returncode")
        if event.kind != "process-ended" or not isinstance(code, int):
            return False
        name = str(event.data.get("name"))
        if not (name in names or name.startswith(_QEMUS) or event.data.get("pid") in attached):
            return False
        if own is not None and event.data.get("pid") not in own:
            # Another guest's, of which its own run tells.
            return False
        end = process_end(code)
        if end.signal in CRASH_SIGNALS:
            crashes.append(str(end))
        return end.signal in CRASH_SIGNALS

    with contextlib.suppress(DeadlineExceeded):
        events.wait(crashed, Deadline(_TOLD_SECONDS, "the end of a QEMU"))
    if not crashes:
        return None
    said = last_words(pair.source.qemu_log(pair.guest_name))
    words = [f"{line}: " for line in (*reports_in(said), *said[-1:])][:1]
    text = f"{''.join(words)}a QEMU ended by {crashes[0]} before the guest was migrated"
    return Finding("qemu-crashed", KIND, text)


def findings_of_crash(crash: EarlyCrash, resolved: ResolvedScenario) -> Findings:
    """All that a run has found out whose guest never came to be migrated."""
    findings = Findings.of_no_arrival(resolved.scenario.expect, GuestReview(None, None))
    return replace(findings, found=(crash.finding,))
