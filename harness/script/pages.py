# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages that a script owns in the guest."""

from __future__ import annotations

from collections.abc import Sequence

from harness.events import Deadline
from harness.scenario.actions.stage import Agent


class OwnedPages:
    """What they have come to, by the guest's own word; in the guest a process of their own has them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._alive = False
        self._bad = 0
        self._frames: tuple[int, ...] = ()

    @property
    def frames(self) -> Sequence[int]:
        """Their page frame numbers."""
        return self._frames

    def call(self, verb: str, *words: int, deadline: Deadline) -> None:
        """Have the agent do something with them (``pages-VERB``), and remember what it says."""
        answer = self._agent.call(f"pages-{verb}", *words, deadline=deadline)
        bad, frames = answer.get("bad"), answer.get("frames")
        self._bad += bad if isinstance(bad, int) else 0
        self._frames = tuple(frames) if isinstance(frames, list) else ()
        self._alive = True

    def lost(self) -> None:
        """The guest has booted again: they are gone."""
        self._alive = False

    def verify(self, deadline: Deadline) -> int:
        """How many of them hold something wrong, now or before."""
        if self._alive:
            self.call("read", deadline=deadline)
        return self._bad
