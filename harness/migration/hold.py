# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's holds: the guest stands still while the oracle looks at its memory.

"Unchanged since the request" cannot be decided afterwards, nor can "free at the
request": somebody must have looked at that moment.  With
``x-free-page-info-hold=request,answer`` the device stops the VM once the dirty
log is armed and before the request leaves, and again when the last chunk of an
answer has come, says ``FREE_PAGE_INFO_HOLD`` and makes the migration wait.  The
harness walks the guest's free lists, takes digests of its pages, and says
``cont``.

libvirt blocks resume while a migration job runs; ``cont`` goes by our own monitor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from harness.errors import MachineryError
from harness.events import EventStream
from harness.memory.access import Image, PageDigests
from harness.memory.digest import RequestDigests, look
from harness.memory.image import Flags
from harness.memory.walk import FreeWalk
from harness.migration.device import RELEASE, find_balloon
from harness.migration.outside import Look, OutsideWalk
from harness.migration.qmp import Monitor

REQUEST: Final = "request"
ANSWER: Final = "answer"
APPLIED: Final = "applied"

#: What was seen at so many requests stays in memory.
_AT_HAND: Final = 2

#: The guest no longer runs on the source, and must not again.
_LEFT: Final = frozenset({"pre-switchover", "device", "completed"})

#: No request has this id: what was looked at before the migration began.
START: Final = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold: which request, at which point, and how long."""

    request: int
    point: str
    seconds: float


class Moments(Protocol):
    """Who has things to do at certain moments of a migration, holds among them."""

    def happened(
        self, moment: str, *, number: int | None = None, then: Callable[[], None] | None = None
    ) -> None:
        """``moment`` has come; ``then`` is called when what is to be done in it is done, now or later."""


class NothingToDo:
    """:class:`Moments` of a migration without a script."""

    def happened(
        self, moment: str, *, number: int | None = None, then: Callable[[], None] | None = None
    ) -> None:
        """Go on at once."""
        del moment, number
        if then is not None:
            then()


class HoldKeeper:
    """Answers holds, and keeps what was seen in them.

    ``requests`` are the digests that were taken at each request; ``looks`` the
    walks by request and point; ``unchanged`` says of each answer which pages held
    then what they held at its request (true as well of pages that were free at
    the request, which nobody looks at again).

    ``script`` has things to do while guest and migration stand still: it is told the
    point, and what to call when the hold is over.  ``spill`` is a
    folder for what was seen at older requests; None: all of it stays in memory.
    """

    def __init__(
        self,
        monitor: Monitor,
        images: Mapping[str, Image],
        events: EventStream,
        outside: OutsideWalk | None = None,
        script: Moments | None = None,
        spill: Path | None = None,
    ) -> None:
        self.requests = RequestDigests()
        self.unchanged: dict[int, dict[str, Flags]] = {}
        self.looks: dict[tuple[int, str], Look] = {}
        self._monitor = monitor
        self._images = images
        self._events = events
        self._outside = outside
        self._script: Moments = script if script is not None else NothingToDo()
        self._spill_to = spill
        self._holds: list[Hold] = []

    @property
    def holds(self) -> tuple[Hold, ...]:
        """Every hold so far, in order."""
        return tuple(self._holds)

    @property
    def seconds(self) -> float:
        """How long the guest stood still for the harness, altogether."""
        return sum(hold.seconds for hold in self._holds)

    def handle(self, data: Mapping[str, object]) -> None:
        """Work off one ``FREE_PAGE_INFO_HOLD``: look, do what the script wants, then say ``cont``.

        ``cont`` is said whatever becomes of the look: a VM left standing would
        turn a failure of the harness into a hang of the migration.
        """
        request, point = data.get("id"), data.get("point")
        if not isinstance(request, int) or point not in (REQUEST, ANSWER, APPLIED):
            raise MachineryError(f"a hold that does not say what it is about: {dict(data)!r}")
        began = time.monotonic()

        def end() -> None:
            if point == APPLIED:
                self._release()
            else:
                self._go_on(request)
            hold = Hold(request, str(point), time.monotonic() - began)
            self._holds.append(hold)
            walked = self._walked(request, str(point))
            self._spill()
            self._events.emit("hold", request=request, point=point, seconds=hold.seconds, walk=walked)

        try:
            # What there is to see at an applied answer was seen when it came.
            if point != APPLIED:
                self._look(request, str(point))
        except BaseException:
            self._go_on(request)
            raise
        self._script.happened(str(point), then=end)

    def _go_on(self, request: int) -> None:
        """``cont``, unless that would run the source after the guest has left it."""
        state = self._monitor.execute("query-migrate")
        status = state.get("status") if isinstance(state, Mapping) else None
        if status in _LEFT:
            raise MachineryError(
                f"the hold at {request:#x} did not hold: the migration is at {status!r}",
                hint="a QEMU that completes while it says that it waits: nothing is known of its memory",
            )
        self._monitor.execute("cont")

    def _release(self) -> None:
        # At this point only the migration stands still: ``cont`` would say nothing to it.
        path = find_balloon(self._monitor)
        self._monitor.execute("qom-set", {"path": path, "property": RELEASE, "value": True})

    def _spill(self) -> None:
        """What was seen at all but the last requests goes to disk; the guest runs again by now."""
        if self._spill_to is None:
            return
        self.requests.spill(self._spill_to, but=_AT_HAND)
        for request in self.requests.requests[:-_AT_HAND]:
            for key in ((request, REQUEST), (request, ANSWER)):
                look = self.looks.get(key)
                if isinstance(look, FreeWalk):
                    self.looks[key] = look.spilt(self._spill_to)

    def start(self) -> None:
        """Look at a guest that stands still before its migration begins."""
        self._look(START, REQUEST)

    def _look(self, request: int, point: str) -> None:
        if self._outside is not None:
            self.looks[request, point] = self._outside.look()
        if point == REQUEST:
            self.requests.take(request, self._images)
            return
        then = self.requests.at(request) or {}
        self.unchanged[request] = {
            name: self._same(request, name, then[name], image)
            for name, image in self._images.items()
            if name in then
        }

    def _same(self, request: int, name: str, then: PageDigests, image: Image) -> Flags:
        before = self.looks.get((request, REQUEST))
        if self._outside is None or not isinstance(before, FreeWalk):
            return then.unchanged(look(image))
        wanted = ~self._outside.pages(before.free, name, image.pages)
        return then.unchanged(look(image, wanted)) | ~wanted

    def _walked(self, request: int, point: str) -> object:
        seen = self.looks.get((request, point))
        if isinstance(seen, FreeWalk):
            return {"free": int(np.count_nonzero(seen.free)), "in_transit": len(seen.in_transit)}
        return None if seen is None else str(seen)
