# SPDX-License-Identifier: GPL-2.0-or-later
"""The one queue through which everything about a migration reaches the main thread.

QMP events come from the monitors' thread, libvirt's end of the job from the job's
thread, and what a script waits for from the script's thread.  The main thread
works through them in the order of their arrival.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import libvirt

from harness.events import Deadline
from harness.migration.qmp import QmpEvent


@dataclass(frozen=True, slots=True)
class JobEnd:
    """``migrate3`` has returned: with the destination's domain, or with an error."""

    domain: libvirt.virDomain | None
    error: libvirt.libvirtError | None


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of something that a script waits for in a thread; ``error``: it has failed."""

    number: int
    error: Exception | None = None


Incoming: TypeAlias = QmpEvent | JobEnd | Completion


class Inbox:
    """What reaches the main thread, in order of arrival."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def put(self, item: Incoming) -> None:
        """Hand something on; never blocks."""
        self._queue.put(item)

    def get(self, deadline: Deadline) -> Incoming:
        """The next thing, or :class:`DeadlineExceeded`."""
        while True:
            try:
                return self._queue.get(timeout=deadline.timeout())
            except queue.Empty:
                deadline.check()

    def rest(self) -> Iterator[Incoming]:
        """What has come by now, without waiting."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()
