# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks beside memory cost a run: each is timed, and the result says so.

    with timed(events, "devices"):
        state = save(...)
    check_seconds(events.history())     # {"devices": 0.041}

Time that a run would take anyway, such as for QEMU to clean up, is none of a check's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from harness.events import Event, EventStream

_KIND: Final = "check-time"

#: ``devices``: their states saved and compared.  ``locks``: who holds the disks' images.  ``ends``: what a
#: QEMU that ends says last, and how it ends.
TimedCheck = Literal["devices", "locks", "ends"]


@contextlib.contextmanager
def timed(events: EventStream, check: TimedCheck) -> Iterator[None]:
    """Count the time of this block to ``check``."""
    began = time.monotonic()
    try:
        yield
    finally:
        events.emit(_KIND, check=check, seconds=time.monotonic() - began)


def check_seconds(history: Iterable[Event]) -> dict[str, float]:
    """Seconds by check, of all migrations of a run."""
    seconds: dict[str, float] = {}
    for event in history:
        took = event.data.get("seconds")
        if event.kind == _KIND and isinstance(took, float):
            name = str(event.data["check"])
            seconds[name] = seconds.get(name, 0.0) + took
    return seconds
