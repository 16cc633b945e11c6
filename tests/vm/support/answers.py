# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration to nowhere that is held at each request and each answer, and looked at from outside.

    answer = Watcher(guest, setup.memory).first_answer()
    answer.judged.counts         # what the walks from outside say of the reported pages

The guest's memory is one block below the hole, so that a page is a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from harness.memory.access import PageDigests
from harness.memory.digest import look
from harness.memory.image import Flags, RamImage
from harness.memory.walk import (
    FreeWalk,
    ReportedPages,
    WitnessComparison,
    compare_witnesses,
    find_kernel,
    judge_reported,
    walk_memory,
)
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.physical import GuestMemory
from harness.testing.agent_guest import SLOW, MigratingGuest

#: For the device: stop the guest at both points.
HELD = "x-free-page-info-hold=request,,answer"


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer, and the guest as it was at its request and when it had come."""

    id: int
    reported: Flags
    before: FreeWalk
    after: FreeWalk
    unchanged: Flags
    chunks: int

    @property
    def judged(self) -> ReportedPages:
        """Whether each reported page was free in between."""
        return judge_reported(self.reported, self.before, self.after, unchanged=self.unchanged)

    @property
    def witnesses(self) -> WitnessComparison:
        """Where module and outside walk differ, and why."""
        return compare_witnesses(self.reported, self.before, later=self.after)


#: Announced when what was done meanwhile is done.
_MEANWHILE = "MEANWHILE"

Looks = dict[str, dict[object, tuple[FreeWalk, PageDigests]]]


class Watcher:
    """Looks at a guest in the device's holds."""

    def __init__(self, guest: MigratingGuest, memory: int) -> None:
        self._guest = guest
        self._memory: GuestMemory = guest.plain.memory()
        self._kernel: KernelLayout = find_kernel(self._memory)
        self._image = RamImage.open(guest.plain.folder / "m0", memory, "m0")

    def first_answer(self, meanwhile: Callable[[], None] | None = None) -> Answer:
        """Migrate; what became of the first request that was answered.

        ``meanwhile`` is called once the first request has left: the module can be
        made to stand somewhere, so that there is time.  In a thread of its own: what it
        does may bring the answer, which stops the guest before the guest has said that it did it.
        """
        guest, looks = self._guest, Looks({"request": {}, "answer": {}})
        # There is no time for anything in a migration that goes as fast as it can.
        guest.set_bandwidth(0 if meanwhile is None else SLOW)
        guest.monitor.execute("migrate", {"uri": "exec:cat > /dev/null"})
        with ThreadPoolExecutor(1, "meanwhile") as pool:
            done: Future[None] | None = None
            while True:
                event = guest.any_event("FREE_PAGE_INFO_HOLD", "MIGRATION", _MEANWHILE)
                if event.name == _MEANWHILE:
                    assert done is not None
                    done.result()
                    guest.set_bandwidth(0)
                elif event.name == "FREE_PAGE_INFO_HOLD":
                    at = looks[str(event.data["point"])]
                    at[event.data["id"]] = walk_memory(self._memory, self._kernel), look(self._image)
                    guest.monitor.execute("cont")
                    if meanwhile is not None and done is None:
                        done = pool.submit(meanwhile)
                        done.add_done_callback(lambda _: guest.announce(_MEANWHILE))
                elif event.data["status"] in ("completed", "failed"):
                    assert event.data["status"] == "completed"
                    break
            if done is not None:
                done.result()
        guest.go_on()
        return self._answer(looks)

    def _answer(self, looks: Looks) -> Answer:
        accepts = [entry for entry in self._guest.record()[-1].accepts if entry.id in looks["answer"]]
        assert accepts, "no request was answered"
        (number,) = {entry.id for entry in accepts[:1]}
        (before, then), (after, now) = looks["request"][number], looks["answer"][number]
        reported = np.zeros(before.frames, dtype=np.bool_)
        own = [entry for entry in accepts if entry.id == number]
        for entry in own:
            flags = entry.reported.flags()
            reported[entry.first : entry.first + len(flags)] |= flags
        unchanged = np.zeros(before.frames, dtype=np.bool_)
        same = then.unchanged(now)
        unchanged[: len(same)] = same
        return Answer(number, reported, before, after, unchanged, len(own))
