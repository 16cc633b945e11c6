# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload tells beside its pages: asked for before the first migration, and after the last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from harness.events import Deadline, Event, EventStream, patience
from harness.evidence.wait_meter import WaitMeter
from harness.guest.control import GuestControl
from harness.guestview.partner import Partner
from harness.guestview.report import Aftermath, Pause, Report
from harness.scenario.resolve import ResolvedScenario

_ANSWER_SECONDS: Final = 60.0
_QUESTIONS: Final = 3


class WorkloadReports:
    """Asks the guest, and has the workload say what it means.  One that reports nothing is not asked.

    Context manager, from before the first migration on: so long the workload's partner on the host, if it
    has one, is at work.
    ``disk``: gives the raw image of the disk that the guest writes to.
    """

    def __init__(
        self,
        control: GuestControl,
        resolved: ResolvedScenario,
        disk: Callable[[], Path | None],
        events: EventStream,
        address: str = "",
    ) -> None:
        self._address = address
        self._control = control
        self._resolved = resolved
        self._disk = disk
        self._events = events
        self._before: Report | None = None
        self._partner: Partner | None = None
        self._waits: WaitMeter | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """The workload is loaded, and the guest not yet migrated."""
        workload = self._resolved.scenario.workload
        if workload.reports:
            partner = workload.partner(self._resolved.seed, self._address)
            if partner is not None:
                self._partner = self._stack.enter_context(partner)
            if workload.punctual:
                self._waits = self._stack.enter_context(WaitMeter(self._events))
            self._before = self._ask()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def arrived(self) -> None:
        """The guest runs on its last host, and has not been asked to stop."""
        if self._partner is not None:
            with self._events.step("partner") as step:
                self._partner.finish(patience(self._resolved.scenario.workload.partner_seconds))
                step.note(account=self._partner.account())

    def end(self) -> Sequence[object]:
        """The workload has stopped in a guest that has moved: facts for the verdict."""
        if self._before is None:
            return ()
        with self._events.step("aftermath") as step:
            after = self._ask()
            gaps = pauses(self._events.history(), self._before.asked, after.answered)
            resolved = self._resolved
            found = self._partner.account() if self._partner is not None else None
            aftermath = Aftermath(
                seed=resolved.seed,
                before=self._before,
                after=after,
                pauses=gaps,
                accelerator=resolved.accelerator,
                disk=self._disk() if resolved.scenario.workload.writes_disk else None,
                partner=found,
                patience=patience(1.0),
                waits=self._waits.of_each() if self._waits is not None else (),
            )
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
    """The spans between two instants in which no QEMU ran the guest.

    It runs on one of them at a time, so it does not matter which of them says that it stands or goes on
    (from one migration to the next they change their names).
    """
    since: float | None = None
    found = list[Pause]()
    zero = 0.0
    for event in events:
        if event.kind == "stream-start":
            zero = datetime.fromisoformat(str(event.data["wall"])).timestamp() - event.t
        if event.kind not in ("STOP", "RESUME"):
            continue
        # QEMU's own time of it, where it is known: ours is later on a busy machine.
        stamp = event.data.get("at")
        at = stamp - zero if isinstance(stamp, float) else event.t
        if event.kind == "STOP" and since is None:
            since = at
        elif event.kind == "RESUME" and since is not None:
            found.append(Pause(since, at))
            since = None
    return tuple(gap for gap in found if begin <= gap.begin and gap.end <= end)
