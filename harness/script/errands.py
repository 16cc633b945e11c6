# SPDX-License-Identifier: GPL-2.0-or-later
"""What a script waits for, in threads: the device may hold the guest meanwhile.

It is the main thread that answers holds, so it must not wait.  What has been done
comes back to it as an item of its inbox, and it goes on from there.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from harness.migration.inbox import Completion

_Work: TypeAlias = Callable[[], object]
#: What the main thread goes on with.
Then: TypeAlias = Callable[[], None]

#: Of all scripts: an answer to one that has ended means nothing to the next.
_NUMBERS: Final = itertools.count(1)


def nothing() -> None:
    """Nobody waits."""


class Errands:
    """All methods are for the main thread; ``put`` is called in others."""

    def __init__(self, put: Callable[[Completion], None]) -> None:
        self._put = put
        self._waiting: dict[int, Then] = {}
        #: What the guest was given to do and has not answered: one thing after the other.
        self._queue: queue.SimpleQueue[tuple[int, _Work]] = queue.SimpleQueue()
        self._unanswered = 0

    @property
    def pending(self) -> bool:
        """Whether something that was queued has not been done."""
        return self._unanswered > 0

    def enqueue(self, work: _Work, then: Then) -> None:
        """Have it done after all that was queued before; ``then`` is called when it is."""
        if self._unanswered == 0:
            self._queue = queue.SimpleQueue()
            # A daemon: a guest that never answers must not keep the run from ending.
            threading.Thread(target=self._work, args=(self._queue,), name="script", daemon=True).start()
        self._unanswered += 1
        number = next(_NUMBERS)

        def done() -> None:
            self._unanswered -= 1
            if self._unanswered == 0:
                self._queue.put((0, nothing))
            then()

        self._waiting[number] = done
        self._queue.put((number, work))

    def start(self, work: _Work, then: Then) -> None:
        """Have it done in a thread of its own, whatever is queued."""
        number = next(_NUMBERS)
        self._waiting[number] = then
        threading.Thread(
            target=lambda: self._put(_completion(number, work)), name=f"script-{number}", daemon=True
        ).start()

    def answered(self, item: Completion) -> None:
        """Something has come back; raises what went wrong with it."""
        then = self._waiting.pop(item.number, None)
        if then is None:
            return
        if item.error is not None:
            raise item.error
        then()

    def _work(self, todo: queue.SimpleQueue[tuple[int, _Work]]) -> None:
        """In a thread: what was queued, in order, until number 0."""
        while True:
            number, work = todo.get()
            if number == 0:
                return
            self._put(_completion(number, work))


def _completion(number: int, work: _Work) -> Completion:
    try:
        work()
    except Exception as error:
        return Completion(number, error)
    return Completion(number)
