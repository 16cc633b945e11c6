# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's work, before, during and after its migration: what it gets done.

The agent samples by the guest's clock, the migration's marks are in ours.  The two
are set against each other by asking for the guest's clock and halving the way; that
is good to a millisecond or two, while windows are tenths of seconds.  The guest's
clock stands while it is stopped, so a pause shows in no rate: down time is
a measure of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.events import Deadline, Event, EventStream
from harness.guest.control import GuestControl
from harness.report.costs import WindowRate, Work
from harness.scenario.load import Scenario

_ANSWER_SECONDS: Final = 60.0
#: The quickest of so many questions has the smallest error.
_QUESTIONS: Final = 3
#: The source's vCPUs stop for good, or are about to.
_SWITCH_OVER: Final = frozenset({"pre-switchover", "device"})


@dataclass(frozen=True, slots=True)
class _Clock:
    """When the guest's clock was asked for, and by how many seconds it was ahead of the stream's."""

    asked: float
    ahead: float


class WorkMeter:
    """Told when the guest runs where, it knows how it fared.  Without a ``measure`` it does nothing."""

    def __init__(self, control: GuestControl, scenario: Scenario, events: EventStream) -> None:
        self._control = control
        self._measure = scenario.measure
        self._unit = scenario.workload.work_unit
        self._events = events
        self._clock = _Clock(0.0, 0.0)
        self._before: WindowRate | None = None
        self._orders: list[int] | None = None

    @property
    def free_blocks(self) -> list[int] | None:
        """Free blocks by order, just before the migration."""
        return self._orders

    def begin(self) -> None:
        """Sample from here on, and let the first window pass."""
        if self._measure is None:
            return
        with self._events.step("watch", seconds=self._measure.before_s):
            self._call("watch", self._measure.every_ms)
            self._clock = self._ask_clock()
            began = self._events.now()
            _let_pass(self._measure.before_s)
            self._before = self._window(self._clock, began, self._events.now())
            blocks = self._call("orders")["blocks"]
            self._orders = [int(count) for count in blocks] if isinstance(blocks, list) else None

    def end(self) -> Work | None:
        """After the guest was resumed: the window after it, and the one in between."""
        if self._measure is None:
            return None
        begun, stopped = migration_marks(self._events.history())
        with self._events.step("watch", seconds=self._measure.after_s):
            clock = self._ask_clock()
            began = self._events.now()
            _let_pass(self._measure.after_s)
            after = self._window(clock, began, self._events.now())
            during = None
            if begun is not None and stopped is not None:
                during = self._window(self._clock, begun, stopped)
        return Work(unit=self._unit, before=self._before, during=during, after=after)

    def _call(self, verb: str, *words: int) -> Mapping[str, object]:
        return self._control.call(verb, *words, deadline=Deadline(_ANSWER_SECONDS, f"the answer to {verb}"))

    def _ask_clock(self) -> _Clock:
        best: tuple[float, float] | None = None
        for _ in range(_QUESTIONS):
            asked = self._events.now()
            clock = self._call("clock")["us"]
            took = self._events.now() - asked
            assert isinstance(clock, int)
            if best is None or took < best[0]:
                best = (took, clock / 1e6 - asked - took / 2)
        assert best is not None
        return _Clock(self._events.now(), best[1])

    def _window(self, clock: _Clock, begin: float, end: float) -> WindowRate | None:
        history = self._events.history()
        words = (
            max(0, round(1e6 * (at + clock.ahead - stood_still(history, clock.asked, at))))
            for at in (begin, end)
        )
        answer = self._call("window", *words)
        numbers = {key: value for key, value in answer.items() if isinstance(value, int)}
        if numbers["samples"] < 2:
            return None
        return WindowRate(
            seconds=numbers["us"] / 1e6,
            work=numbers["work"],
            lowest_free_bytes=numbers["mem_free_lowest"],
            longest_gap_ms=numbers["gap_us"] / 1e3,
        )


def migration_marks(events: Iterable[Event]) -> tuple[float | None, float | None]:
    """When the (last) migration began to send, and when the guest stopped for good."""
    begun: float | None = None
    stopped: float | None = None
    for event in events:
        if event.source != "source.qmp" or event.kind != "MIGRATION":
            continue
        data = event.data.get("data")
        status = data.get("status") if isinstance(data, Mapping) else None
        if status == "active":
            begun, stopped = event.t, None
        elif status in _SWITCH_OVER and stopped is None:
            stopped = event.t
    return begun, stopped


def stood_still(events: Iterable[Event], begin: float, end: float) -> float:
    """For how many of the seconds between two instants the source's QEMU had stopped the guest."""
    total, since = 0.0, None
    for event in events:
        if event.source != "source.qmp" or not begin <= event.t <= end:
            continue
        if event.kind == "STOP" and since is None:
            since = event.t
        elif event.kind == "RESUME" and since is not None:
            total, since = total + event.t - since, None
    return total if since is None else total + end - since


def _let_pass(seconds: float) -> None:
    """A window is a length of time: nothing is waited for."""
    threading.Event().wait(seconds)
