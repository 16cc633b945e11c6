# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's test-only hold: the VM stands still while the harness looks at its memory.

"Unchanged since the request" cannot be decided afterwards: somebody must have
looked at the moment of the request.  With ``x-free-page-info-hold=request`` the
device stops the VM once the dirty log is armed and before the request leaves,
says ``FREE_PAGE_INFO_HOLD`` and makes the migration wait.  The harness takes a
digest of every page of the source's RAM and says ``cont``; then the request
leaves.  ``point=answer`` is the same after an answer, before it is applied.

libvirt blocks resume while a migration job runs; ``cont`` goes by our own monitor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import MachineryError
from harness.events import EventStream
from harness.memory.digest import RequestDigests
from harness.memory.image import RamImage
from harness.migration.qmp import Monitor

REQUEST: Final = "request"
ANSWER: Final = "answer"


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold: which request, at which point, and how long."""

    request: int
    point: str
    seconds: float


class HoldKeeper:
    """Answers holds.  ``requests`` and ``answers`` are the digests that were taken in them."""

    def __init__(self, monitor: Monitor, images: Mapping[str, RamImage], events: EventStream) -> None:
        self.requests = RequestDigests()
        self.answers = RequestDigests()
        self._monitor = monitor
        self._images = images
        self._events = events
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
        """Work off one ``FREE_PAGE_INFO_HOLD``: digests, then ``cont``.

        ``cont`` is said whatever happens to the digests: a VM left standing would
        turn a failure of the harness into a hang of the migration.
        """
        request, point = data.get("id"), data.get("point")
        if not isinstance(request, int) or point not in (REQUEST, ANSWER):
            raise MachineryError(f"a hold that does not say what it is about: {dict(data)!r}")
        began = time.monotonic()
        try:
            (self.requests if point == REQUEST else self.answers).take(request, self._images)
        finally:
            self._monitor.execute("cont")
        hold = Hold(request, point, time.monotonic() - began)
        self._holds.append(hold)
        self._events.emit("hold", request=request, point=point, seconds=hold.seconds)
