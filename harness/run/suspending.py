# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has suspended itself to its memory (ACPI S3): how it comes to that, and how it wakes up.

QEMU stops such a guest for a migration as it stops one that runs, and notes that it was
suspended; on its new host it is so again once it was told to go on, until it is woken up.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from harness.errors import DeadlineExceeded, FreepageError, MachineryError
from harness.events import Deadline, Event, EventStream
from harness.guest.control import GuestControl
from harness.migration.qmp import Monitor
from harness.scenario.command import Command, CommandEnd, run_in_guest
from harness.verdict.finding import Finding

#: What has Linux suspend itself; it ends when the guest has been woken up.
_SUSPENDS: Final = Command(run=("sh", "-c", "echo mem > /sys/power/state"), within_s=3600)
#: An emulated guest's drivers may take their time to come to rest.
SUSPEND_SECONDS: Final = 120.0


class Suspension:
    """One guest, from the moment at which it is asked to suspend itself."""

    def __init__(self, control: GuestControl, events: EventStream) -> None:
        self._control = control
        self._events = events
        self._end: CommandEnd | FreepageError | None = None

    def begin(self, side: str, host: str) -> None:
        """Returns once the QEMU on ``side``, the host ``host``, says so; else raises MachineryError."""
        since = self._events.history()[-1].seq
        with self._events.step("suspend"):
            # Its answer comes when it is awake again, wherever it is then.
            threading.Thread(target=self._ask, name="suspend", daemon=True).start()
            deadline = Deadline(SUSPEND_SECONDS, "the guest's suspension to its memory")

            def over(event: Event) -> bool:
                suspended = event.kind == "SUSPEND" and event.source == f"{side}.qmp"
                return suspended or event.kind == "suspend-over"

            try:
                found = self._events.wait(over, deadline, after=since)
            except DeadlineExceeded as error:
                raise MachineryError(f"moves: guest: suspended: {error.message}") from error
            # The agent would be asked again: a byte in a port that nobody reads is device state.
            self._control.mute(host)
            if found.kind != "SUSPEND":
                raise MachineryError(
                    f"moves: guest: suspended: the guest does not suspend itself: {self._words()}"
                )

    def _ask(self) -> None:
        try:
            self._end = run_in_guest(self._control, _SUSPENDS)
        except FreepageError as error:
            self._end = error
        self._events.emit("suspend-over", words=self._words())

    def _words(self) -> str:
        end = self._end
        if isinstance(end, CommandEnd):
            return end.output.strip() or f"its kernel's answer is {end.status}"
        return end.message if end is not None else "it does not answer"


def wake_up(monitor: Monitor, events: EventStream, host: str) -> Finding | None:
    """Have a QEMU that goes on wake its guest up; what is wrong with that."""
    said = monitor.execute("query-status")
    status = said.get("status") if isinstance(said, Mapping) else None
    events.emit("wake-up", source=host, status=status)
    if status != "suspended":
        text = f"the guest was suspended to its memory, and on the {host} QEMU says that it is {status!r}"
        return Finding("suspend-lost", "outcome", text)
    monitor.execute("system_wakeup")
    return None
