# SPDX-License-Identifier: GPL-2.0-or-later
"""The line at which guests wait for each other before each migration begins."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from harness.errors import DeadlineExceeded
from harness.events import Deadline


class Line(Protocol):
    """What one guest knows of it."""

    def meet(self, deadline: Deadline | None = None) -> None:
        """Wait until every other guest has come as far; whoever has left is not waited for."""


class StartLine:
    """For the guests with these numbers.  Each comes to it as often as the others, or leaves."""

    def __init__(self, guests: Iterable[int]) -> None:
        self._changed = threading.Condition()
        self._met = dict.fromkeys(guests, 0)

    def of(self, guest: int) -> LineOfGuest:
        """For one of the guests."""
        return LineOfGuest(self, guest)

    def meet(self, guest: int, deadline: Deadline | None = None) -> None:
        """``guest`` has come; returns when all have that are still there.

        Without a ``deadline`` it waits for as long as the others take, each of which has its own.
        Raises :class:`DeadlineExceeded`.
        """
        with self._changed:
            self._met[guest] += 1
            turn = self._met[guest]
            self._changed.notify_all()
            while late := [other for other, met in self._met.items() if met < turn]:
                if deadline is not None and deadline.expired:
                    names = ", ".join(str(other) for other in late)
                    raise DeadlineExceeded(
                        f"guest {guest} waited {deadline.seconds:g} s to move together with guest {names}"
                    )
                self._changed.wait(None if deadline is None else deadline.timeout())

    def leave(self, guest: int) -> None:
        """``guest`` comes no more; may be called twice."""
        with self._changed:
            self._met.pop(guest, None)
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class LineOfGuest:
    """See :class:`Line`."""

    line: StartLine
    guest: int

    def meet(self, deadline: Deadline | None = None) -> None:
        """See :meth:`StartLine.meet`."""
        self.line.meet(self.guest, deadline)
