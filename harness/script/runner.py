# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario's script, worked off while a migration runs.

The migration's events come one by one; each may be the moment that the script's
current entry waits for.  An action that takes effect at once is carried out on the
spot, so a hold of the device whose entry has no others is over when
:meth:`ScriptRunner.happened` returns.  Those that wait for the guest are
:mod:`errands <harness.script.errands>`.

    runner = ScriptRunner(entries, stage, events, inbox.put)
    runner.happened("request", then=cont)     # cont is called when the entry is done
    runner.answered(item)                     # what a thread has put into the inbox
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import GuestRefused, MachineryError
from harness.events import Deadline, EventStream
from harness.migration.inbox import Completion
from harness.scenario.actions.module import MODULE_HOLDS
from harness.script.errands import Errands, Then, nothing
from harness.script.outcome import ENTRY_BEGINS, UNDONE
from harness.script.punctuality import Began, lateness

if TYPE_CHECKING:
    from harness.scenario.actions.base import Action
    from harness.scenario.actions.stage import Stage
    from harness.scenario.script import Entry

_APPLIED: Final = "applied"


@dataclass(slots=True)
class _Current:
    """An entry that is being done."""

    entry: Entry
    actions: Iterator[tuple[int, Action]]
    then: Then


class ScriptRunner:
    """Works off the entries of one migration.  All methods are for the main thread.

    ``on_moment`` is told each moment first, and which one of its name it is, before an entry that waits
    for it begins.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        stage: Stage,
        events: EventStream,
        put: Callable[[Completion], None],
        on_moment: Callable[[str, int], None] | None = None,
    ) -> None:
        self._entries = tuple(entries)
        self._stage = stage
        self._events = events
        self._errands = Errands(put)
        self._on_moment = on_moment
        self._next = 0
        self._seen: Counter[str] = Counter()
        self._current: _Current | None = None
        #: An action has raised: its entry is done no further.
        self._failed = False
        # Holds in which the guest runs on: they can wait for the entry that is being done.
        self._deferred: list[tuple[str, int, Then]] = []
        self._begun: list[Began] = []
        #: Events from here on are of this script's migration.
        self._since = len(events.history()) - 1

    @property
    def busy(self) -> bool:
        """Whether an entry has begun and is not done, or the guest has something left to do."""
        return not self._failed and (self._current is not None or self._errands.pending)

    @property
    def unreached(self) -> tuple[Entry, ...]:
        """Entries that were not done, or not to their end."""
        return self._entries[self._next - (self._current is not None) :]

    @property
    def late(self) -> tuple[str, ...]:
        """Entries whose moment had passed when their first action came, in words."""
        history = self._events.history()
        words = (lateness(began, history, self._since) for began in self._begun)
        return tuple(text for text in words if text is not None)

    def begin(self) -> None:
        """The first entry may be waiting for the module already."""
        self._watch()

    def happened(self, moment: str, *, number: int | None = None, then: Then | None = None) -> None:
        """A moment has come: ``then`` is called when what is to be done in it is done.

        ``number`` says which one it is, where the moment has a number of its own (a pass).
        """
        self._seen[moment] += 1
        which = self._seen[moment] if number is None else number
        if self._on_moment is not None:
            self._on_moment(moment, which)
        after = then if then is not None else nothing
        if self._current is not None and moment == _APPLIED:
            self._deferred.append((moment, which, after))
        else:
            self._is(moment, which, after)

    def answered(self, item: Completion) -> None:
        """What was waited for has come; raises what went wrong with it."""
        with self._given_up_by_an_error():
            self._errands.answered(item)

    @contextlib.contextmanager
    def _given_up_by_an_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    def settle(self, get: Callable[[Deadline], object], deadline: Deadline) -> None:
        """Wait until the entry that has begun is done; what else ``get`` brings is of no interest."""
        while self.busy:
            item = get(deadline)
            if isinstance(item, Completion):
                self.answered(item)

    def _is(self, moment: str, which: int, after: Then) -> None:
        entry = self._entries[self._next] if self._next < len(self._entries) else None
        turn = entry is not None and entry.at == moment and entry.number in (None, which)
        if entry is None or not turn or self._current is not None:
            after()
            return
        self._next += 1
        self._current = _Current(entry, enumerate(entry.do, 1), after)
        self._events.emit(ENTRY_BEGINS, at=moment, number=which, move=entry.move, entry=self._next)
        first = entry.do[0]
        self._begun.append(Began(moment, which, first.action, self._events.now(), first.brings))
        self._go_on()

    def _go_on(self) -> None:
        current = self._current
        assert current is not None
        for place, action in current.actions:
            self._events.emit("action", **action.model_dump(mode="json"))
            if action.needs_guest or action.waits:
                if place == len(current.entry.do) and current.then is nothing:
                    # Its effect may be the next moment, and come before the guest's answer.
                    self._ask_guest(action, nothing)
                    break
                self._ask_guest(action, self._go_on)
                return
            if action.ends_hold and current.then is not nothing:
                # Only the hold knows that it is over; it is over once.
                current.then, end_hold = nothing, current.then
                end_hold()
                continue
            with self._given_up_by_an_error():
                self._carry_out(action, "script")
        self._current = None
        current.then()
        self._watch()
        while self._deferred and self._current is None:
            self._is(*self._deferred.pop(0))

    def _ask_guest(self, action: Action, then: Then) -> None:
        def work() -> None:
            try:
                self._carry_out(action, "guest")
            except GuestRefused as refusal:
                # One that has not moved yet has not lost it by a migration: it never could.
                if not self._stage.guest_has_moved:
                    raise
                self._stage.find(UNDONE, f"{action.action}: {refusal.message}")

        self._errands.enqueue(work, then)

    def _carry_out(self, action: Action, whose: str) -> None:
        try:
            action.carry_out(self._stage, Deadline(action.seconds, f"the {whose}'s {action.action}"))
        except MachineryError as error:
            if not self._stage.came_too_late(action.action, error, in_postcopy=action.needs_postcopy):
                raise

    def _watch(self) -> None:
        """If the next entry waits for the module: ask the guest to say when."""
        if self._next == len(self._entries):
            return
        point = self._entries[self._next].at
        if point in MODULE_HOLDS:
            self._errands.start(lambda: self._await_walk(point), lambda: self.happened(point))

    def _await_walk(self, point: str) -> None:
        deadline = Deadline(self._stage.facts.timeout_s, f"a walk that is held {point}")
        self._stage.guest.call("held", point, deadline=deadline)
