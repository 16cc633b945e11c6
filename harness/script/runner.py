# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario's script, worked off while a migration runs.

The migration's events come one by one; each may be the moment that the script's
current entry waits for.  Actions that take effect at once are done on the spot.
Those that wait for the guest run in a thread of their own, because the device may
hold the guest meanwhile, and it is the main thread that answers holds.

    runner = ScriptRunner(entries, stage, inbox.put)
    runner.happened("request", then=cont)     # cont is called when the entry is done
    runner.answered(item)                     # what the thread has put into the inbox
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from harness.events import Deadline, EventStream
from harness.migration.migrate import Answered
from harness.scenario.script import MODULE_HOLDS, NEEDS_GUEST, Cont

if TYPE_CHECKING:
    from harness.scenario.script import Action, Entry

Then: TypeAlias = Callable[[], None]

APPLIED: Final = "applied"

#: Of all runners: an answer to one that has ended means nothing to the next.
_NUMBERS = itertools.count(1)


class Stage(Protocol):
    """What carries actions out; :class:`harness.script.stage.Actor` in a run."""

    def at_once(self, action: Action) -> None:
        """Do something that waits for nobody but QEMU."""

    def with_guest(self, action: Action) -> None:
        """Do something that waits for the guest.  Called in another thread."""

    def wait_for_walk(self, point: str) -> None:
        """Return when the guest's module holds a walk at ``point``.  Called in another thread."""


@dataclass(slots=True)
class _Current:
    """An entry that is being done."""

    entry: Entry
    actions: Iterator[tuple[int, Action]]
    then: Then


class ScriptRunner:
    """Works off the entries of one migration.  All methods are for the main thread."""

    def __init__(
        self,
        entries: Sequence[Entry],
        stage: Stage,
        events: EventStream,
        put: Callable[[Answered], None],
    ) -> None:
        self._entries = tuple(entries)
        self._stage = stage
        self._events = events
        self._put = put
        self._next = 0
        self._seen: Counter[str] = Counter()
        self._current: _Current | None = None
        self._waiting: dict[int, Then] = {}
        #: What the guest was given to do and has not answered: one thing after the other.
        self._with_guest: queue.SimpleQueue[tuple[int, Action]] = queue.SimpleQueue()
        self._unanswered = 0
        # Holds in which the guest runs on: they can wait for the entry that is being done.
        self._deferred: list[tuple[str, int, Then]] = []

    @property
    def busy(self) -> bool:
        """Whether an entry has begun and is not done, or the guest has something left to do."""
        return self._current is not None or self._unanswered > 0

    @property
    def unreached(self) -> tuple[Entry, ...]:
        """Entries that were not done, or not to their end."""
        return self._entries[self._next - (self._current is not None) :]

    def begin(self) -> None:
        """The first entry may be waiting for the module already."""
        self._watch()

    def happened(self, moment: str, *, number: int | None = None, then: Then | None = None) -> None:
        """A moment has come: ``then`` is called when what is to be done in it is done.

        ``number`` says which one it is, where the moment has a number of its own (a pass).
        """
        self._seen[moment] += 1
        which = self._seen[moment] if number is None else number
        after = then if then is not None else _nothing
        if self._current is not None and moment == APPLIED:
            self._deferred.append((moment, which, after))
        else:
            self._is(moment, which, after)

    def _is(self, moment: str, which: int, after: Then) -> None:
        if self._current is not None or self._next == len(self._entries):
            after()
            return
        entry = self._entries[self._next]
        if entry.at != moment or (entry.number is not None and entry.number != which):
            after()
            return
        self._next += 1
        self._current = _Current(entry, enumerate(entry.do, 1), after)
        self._events.emit("script", at=moment, number=which, move=entry.move, entry=self._next)
        self._go_on()

    def answered(self, item: Answered) -> None:
        """What was waited for has come; raises what went wrong with it."""
        resume = self._waiting.pop(item.number, None)
        if resume is None:
            return
        if item.error is not None:
            raise item.error
        resume()

    def settle(self, get: Callable[[Deadline], object], deadline: Deadline) -> None:
        """Wait until the entry that has begun is done; what else ``get`` brings is of no interest."""
        while self.busy:
            item = get(deadline)
            if isinstance(item, Answered):
                self.answered(item)

    def _go_on(self) -> None:
        current = self._current
        assert current is not None
        for place, action in current.actions:
            self._events.emit("action", **action.model_dump(mode="json"))
            if isinstance(action, NEEDS_GUEST):
                last = place == len(current.entry.do)
                if last and current.then is _nothing:
                    # Its effect may be the next moment, and come before the guest's answer.
                    self._ask_guest(action, _nothing)
                    break
                self._ask_guest(action, self._go_on)
                return
            if isinstance(action, Cont) and current.then is not _nothing:
                # Only the hold knows that it is over; it is over once.
                current.then, end_hold = _nothing, current.then
                end_hold()
                continue
            self._stage.at_once(action)
        self._current = None
        current.then()
        self._watch()
        while self._deferred and self._current is None:
            self._is(*self._deferred.pop(0))

    def _ask_guest(self, action: Action, resume: Then) -> None:
        if self._unanswered == 0:
            self._with_guest = queue.SimpleQueue()
            todo = self._with_guest
            # A daemon: a guest that never answers must not keep the run from ending.
            threading.Thread(target=self._work, args=(todo,), name="script", daemon=True).start()
        self._unanswered += 1
        number = next(_NUMBERS)

        def answered() -> None:
            self._unanswered -= 1
            if self._unanswered == 0:
                self._with_guest.put((0, action))
            resume()

        self._waiting[number] = answered
        self._with_guest.put((number, action))

    def _work(self, todo: queue.SimpleQueue[tuple[int, Action]]) -> None:
        """In a thread: what the guest is given to do, in order, until number 0."""
        while True:
            number, action = todo.get()
            if number == 0:
                return
            self._put(_outcome(number, functools.partial(self._stage.with_guest, action)))

    def _watch(self) -> None:
        """If the next entry waits for the module: ask the guest to say when."""
        if self._next == len(self._entries):
            return
        point = self._entries[self._next].at
        if point in MODULE_HOLDS:
            self._in_thread(lambda: self._stage.wait_for_walk(point), lambda: self.happened(point))

    def _in_thread(self, work: Callable[[], None], resume: Then) -> None:
        number = next(_NUMBERS)
        self._waiting[number] = resume
        threading.Thread(
            target=lambda: self._put(_outcome(number, work)), name=f"script-{number}", daemon=True
        ).start()


def _outcome(number: int, work: Callable[[], None]) -> Answered:
    try:
        work()
    except Exception as error:
        return Answered(number, error)
    return Answered(number)


def _nothing() -> None:
    pass
