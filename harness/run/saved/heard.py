# SPDX-License-Identifier: GPL-2.0-or-later
"""What one QEMU says from now on, one event after the other."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from harness.migration.qmp import CLOSED, Monitor, QemuGone, QmpEvent

if TYPE_CHECKING:
    from harness.events import Deadline


class HeardEvents:
    """The events of a monitor since this was made."""

    def __init__(self, monitor: Monitor) -> None:
        self._side = monitor.side
        self._heard: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
        monitor.listen(self._heard.put)

    def next(self, what: str, deadline: Deadline) -> QmpEvent:
        """The next one.  Raises :class:`QemuGone` if there is none any more: then nobody says ``what``."""
        while True:
            try:
                event = self._heard.get(timeout=deadline.timeout())
            except queue.Empty:
                deadline.check()
                continue
            if event.name == CLOSED:
                raise QemuGone(self._side, what)
            return event
