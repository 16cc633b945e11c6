# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration in miniature: a guest, a device that obeys the protocol, and what an oracle would see.

Pages hold small integers (0 is a page of zeros).  The world is played by a
seeded random player; whatever he does, a device that obeys the rules must end
in a pass.  The mutations of the tests start from such an end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from harness.memory.record import Accept, Block, PackedFlags, Request
from harness.scenario.expectations import Expect
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, JudgeInput

BLOCK = "pc.ram"


@dataclass
class Faults:
    """What the miniature device does wrong."""

    ignore_generation: bool = False
    log_armed_late: bool = False


class World:
    """Play it with :meth:`play`, end it with :meth:`finish`, judge :meth:`case`."""

    def __init__(self, pages: int, seed: int, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)
        self.pages = pages
        self.faults = faults or Faults()
        self.fresh = 0
        rng = self.random
        self.used = np.array([rng.random() < 0.5 for _ in range(pages)])
        self.content = np.array([self.new() if rng.random() < 0.7 else 0 for _ in range(pages)])
        self.there = np.zeros(pages, dtype=np.int64)
        self.hole = np.zeros(pages, dtype=np.bool_)
        self.log_bits = np.zeros(pages, dtype=np.bool_)
        self.bmap = np.ones(pages, dtype=np.bool_)
        self.sent = np.zeros(pages, dtype=np.bool_)
        self.generation = 1
        self.log: list[Request | Accept] = []
        self.digests: dict[int, np.ndarray] = {}
        self.request: Request | None = None
        self.next_id = 0x5_0000_0000

    def new(self) -> int:
        self.fresh += 1
        return self.fresh

    # The guest.

    def write(self, page: int, value: int) -> None:
        self.content[page] = value
        self.used[page] = True
        self.hole[page] = False
        self.log_bits[page] = True

    def give_back(self, page: int) -> None:
        """A balloon takes a free page: it reads as zeros, and no write was seen."""
        if not self.used[page] and not self.sent[page]:
            self.content[page] = 0
            self.hole[page] = True

    # The device.

    def send(self, page: int) -> None:
        if self.bmap[page]:
            self.bmap[page] = False
            self.there[page] = self.content[page]
            self.sent[page] = True

    def sync(self) -> None:
        self.generation += 1
        self.bmap |= self.log_bits
        self.log_bits[:] = False

    def ask(self) -> None:
        self.next_id += 1
        self.request = Request(self.next_id, self.generation, 0, self.pages)
        self.digests[self.next_id] = self.content.copy()
        self.log.append(self.request)

    def answer(self) -> None:
        request = self.request
        if request is None or (request.generation != self.generation and not self.faults.ignore_generation):
            return
        first = self.random.randrange(self.pages)
        count = self.random.randrange(1, self.pages - first + 1)
        here = slice(first, first + count)
        reported = ~self.used[here]
        cleared = reported & self.bmap[here] & ~self.sent[here]
        if self.faults.log_armed_late:
            self.log_bits[here][cleared] = False
        self.bmap[here][cleared] = False
        self.log.append(
            Accept(
                request.id,
                self.generation,
                BLOCK,
                first,
                PackedFlags.pack(reported),
                PackedFlags.pack(cleared),
            )
        )

    # The player.

    def play(self, steps: int) -> World:
        rng = self.random
        moves = ["write"] * 6 + [
            "zero",
            "free",
            "free",
            "free",
            "give_back",
            "sync",
            "ask",
            "answer",
            "answer",
        ]
        moves += ["send"] * 5
        for _ in range(steps):
            page, move = rng.randrange(self.pages), rng.choice(moves)
            if move == "write":
                self.write(page, self.new())
            elif move == "zero":
                self.write(page, 0)
            elif move == "free":
                for other in range(page, min(page + 8, self.pages)):
                    self.used[other] = False
            elif move == "give_back":
                self.give_back(page)
            elif move == "send":
                for other in range(page, min(page + 4, self.pages)):
                    self.send(other)
            elif move == "sync":
                self.sync()
            elif move == "ask":
                self.ask()
            else:
                self.answer()
        return self

    def finish(self) -> World:
        """The guest stops, the last sync, the last pages."""
        self.sync()
        for page in range(self.pages):
            self.send(page)
        return self

    def state(self) -> BlockState:
        return BlockState(
            block=Block(BLOCK, self.pages, ((0, 0, self.pages * PAGE_SIZE),)),
            differing=np.flatnonzero(self.content != self.there),
            zero_on_source=self.content == 0,
            zero_on_destination=self.there == 0,
            sent=self.sent.copy(),
            hole_on_source=self.hole.copy(),
        )

    def case(self) -> JudgeInput:
        accepts = [entry for entry in self.log if isinstance(entry, Accept)]
        return JudgeInput(
            arm="info",
            blocks=(self.state(),),
            log=tuple(self.log),
            unchanged={
                request: {BLOCK: digests == self.content} for request, digests in self.digests.items()
            },
            statistics={
                "requests": sum(isinstance(entry, Request) for entry in self.log),
                "reported": sum(accept.reported.count() for accept in accepts),
                "skipped": sum(accept.cleared.count() for accept in accepts),
            },
            expect=Expect(skipping=False),
        )

    def skipped_pages(self) -> list[int]:
        """Cleared by an answer, never sent."""
        cleared = np.zeros(self.pages, dtype=np.bool_)
        for entry in self.log:
            if isinstance(entry, Accept):
                flags = entry.cleared.flags()
                cleared[entry.first : entry.first + len(flags)] |= flags
        return np.flatnonzero(cleared & ~self.sent).tolist()

    def last_request_of(self, page: int) -> int:
        """The request by whose answer a skipped page was cleared last."""
        found = None
        for entry in self.log:
            if isinstance(entry, Accept) and entry.first <= page < entry.first + entry.cleared.pages:
                found = entry.id if entry.cleared.flags()[page - entry.first] else found
        assert found is not None
        return found


def with_state(case: JudgeInput, **changes: object) -> JudgeInput:
    """The same case with something else seen in its one block."""
    return replace(case, blocks=(replace(case.blocks[0], **changes),))
