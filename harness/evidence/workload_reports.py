# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload tells beside its pages: asked for before the first migration, and after the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from harness.events import Deadline, Event, EventStream
from harness.guest.control import GuestControl
from harness.guestview.report import Aftermath, Pause, Report
from harness.scenario.resolve import Resolved

_ANSWER_SECONDS: Final = 60.0
_QUESTIONS: Final = 3


class WorkloadReports:
    """Asks the guest, and has the workload say what it means.  One that reports nothing is not asked.

    ``disk``: the image of the disk that the guest writes to.
    """

    def __init__(
        self, control: GuestControl, resolved: Resolved, disk: Path | None, events: EventStream
    ) -> None:
        self._control = control
        self._resolved = resolved
        self._disk = disk
        self._events = events
        self._before: Report | None = None

    def begin(self) -> None:
        """The workload is loaded, and the guest not yet migrated."""
        if self._resolved.scenario.workload.reports:
            self._before = self._ask()

    def end(self) -> Sequence[object]:
        """The workload has stopped in a guest that has moved: facts for the verdict."""
        if self._before is None:
            return ()
        with self._events.step("aftermath") as step:
            after = self._ask()
            gaps = pauses(self._events.history(), self._before.asked, after.answered)
            resolved = self._resolved
            aftermath = Aftermath(resolved.seed, self._before, after, gaps, resolved.accelerator, self._disk)
            facts = resolved.scenario.workload.facts(aftermath)
            step.note(report=after.said, paused_s=round(sum(gap.seconds for gap in gaps), 3), facts=facts)
        return facts

    def _ask(self) -> Report:
        """Of several answers the quickest: of that it is known best when it was given."""
        return min(
            (self._ask_once() for _ in range(_QUESTIONS)), key=lambda found: found.answered - found.asked
        )

    def _ask_once(self) -> Report:
        asked = self._events.now()
        said = self._control.call("report", deadline=Deadline(_ANSWER_SECONDS, "the workload's report"))
        return Report(said, asked, self._events.now())


def pauses(events: Iterable[Event], begin: float, end: float) -> tuple[Pause, ...]:
    """The spans between two instants in which no QEMU ran the guest; at first the source's does."""
    running, since, found = {"source.qmp"}, begin, list[Pause]()
    zero = 0.0
    for event in events:
        if event.kind == "stream-start":
            zero = datetime.fromisoformat(str(event.data["wall"])).timestamp() - event.t
        if event.kind not in ("STOP", "RESUME"):
            continue
        # QEMU's own time of it, where it is known: ours is later on a busy machine.
        stamp = event.data.get("at")
        at = stamp - zero if isinstance(stamp, float) else event.t
        stood = not running
        if event.kind == "STOP":
            running.discard(event.source)
        else:
            running.add(event.source)
        if stood and running:
            found.append(Pause(since, at))
        elif not stood and not running:
            since = at
    return tuple(gap for gap in found if begin <= gap.begin and gap.end <= end)
