# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration's switch to postcopy: what is known of it when the source stands, and what came later.

At the switch the source stops for good, and holds every page as the guest left it.
Digests of all its pages are taken then, before QEMU sends another byte: the
migration waits at ``pre-switchover`` meanwhile.  What has come of pages is counted
by QEMU, and a difference of two answers to ``query-migrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import MachineryError
from harness.events import Deadline
from harness.memory.access import PageDigests
from harness.migration.qmp import Monitor

#: Statuses of QEMU's in which the guest has left the source, and pages of it are still there.
IN_POSTCOPY: Final = frozenset(
    {"postcopy-active", "postcopy-paused", "postcopy-recover-setup", "postcopy-recover"}
)
PAUSED: Final = "postcopy-paused"


@dataclass(frozen=True, slots=True)
class PageCounters:
    """How many sendings of pages, and bytes, QEMU counts; from the source's ``query-migrate``."""

    full_pages: int
    zero_pages: int
    #: Pages that the destination has asked for, by what has reached the source.
    requests: int
    precopy_bytes: int
    downtime_bytes: int
    postcopy_bytes: int

    @classmethod
    def of(cls, answer: object) -> PageCounters:
        """From QEMU's answer.  Raises :class:`MachineryError` if it does not speak of memory."""
        ram = answer.get("ram") if isinstance(answer, Mapping) else None
        if not isinstance(ram, Mapping):
            raise MachineryError(f"query-migrate says nothing of memory: {answer!r}")

        def number(key: str) -> int:
            value = ram.get(key, 0)
            return value if isinstance(value, int) else 0

        return cls(
            full_pages=number("normal"),
            zero_pages=number("duplicate"),
            requests=number("postcopy-requests"),
            precopy_bytes=number("precopy-bytes"),
            downtime_bytes=number("downtime-bytes"),
            postcopy_bytes=number("postcopy-bytes"),
        )


@dataclass(frozen=True, eq=False, slots=True)
class SourceAtSwitch:
    """The source, which stands still for good.  ``digests`` are by RAMBlock."""

    digests: Mapping[str, PageDigests]
    counters: PageCounters
    #: Seconds of the event stream.
    at: float


def await_paused(monitor: Monitor, deadline: Deadline) -> None:
    """Return when this QEMU says that its migration is paused in postcopy.

    The other side has closed the connection, or this one was told to; it is a
    matter of a thread that notices.  Each question takes QEMU's main loop a turn.
    Raises :class:`MachineryError` for a migration that is in another state for good.
    """
    while True:
        answer = monitor.execute("query-migrate", seconds=deadline.timeout())
        status = answer.get("status") if isinstance(answer, Mapping) else None
        if status == PAUSED:
            return
        if status not in IN_POSTCOPY:
            raise MachineryError(
                f"the {monitor.side}'s migration is at {status!r}: there is nothing to recover",
                hint="postcopy-recover is for a migration whose connection has broken in postcopy",
            )
        deadline.check()
