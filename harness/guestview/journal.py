# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk must hold that the workload ``journal`` has written to, and what its image holds.

Step K of writer W is a function of the seed, W and K, the same as in
``vm-images/guest/workloads/journal.c``.  So the number of steps of each writer that
were acknowledged is the whole journal: it is replayed here, and the image is held
against it.  A block that step K wrote last holds the formula in generation K, so a
block tells which step it is of, and whether all of it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.guestview.report import Report
from harness.memory import formula

#: Steps beyond a writer's last that may be on their way: it has one request at a time.
_IN_FLIGHT: Final = 1

Steps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Writers:
    """What the writers say of themselves, each at its place in every list."""

    steps: Sequence[int]
    """Acknowledged."""
    busy: Sequence[int]
    """Whether the step after those is on its way."""
    stuck: Sequence[int]
    failed: Sequence[int]
    """The error number that a request ended with; 0: none."""
    bad: Sequence[int]
    """Blocks that it read and found wrong."""
    first_bad: Sequence[int]

    @classmethod
    def read(cls, report: Report, depth: int) -> Writers:
        """From a report of so many writers.  Raises :class:`MachineryError` if something is missing."""
        names = ("steps", "busy", "stuck", "failed", "bad", "first_bad")
        return cls(*(report.numbers(name, depth) for name in names))


@dataclass(frozen=True, slots=True)
class WrongBlock:
    """A block of the image that does not hold what it must."""

    block: int
    text: str


@dataclass(frozen=True, slots=True)
class DiskReview:
    """What came of the workload's disk, for the verdict."""

    wrong: tuple[WrongBlock, ...]
    """Of the image, as the host reads it."""
    read_bad: int
    """What the guest itself has read and found wrong, and its first block."""
    first_read_bad: int | None
    unanswered: int
    """Requests that were not answered within ``patience`` seconds of the guest's time."""
    patience: int
    failed: int
    """Requests that ended with an error."""
    acknowledged: int
    """Steps in all."""


@dataclass(frozen=True, slots=True)
class Replay:
    """By block of one writer: the last step that wrote it, made it zero, or discarded it; 0: none."""

    written: Steps
    zeroed: Steps
    discarded: Steps


def replay(seed: int, writer: int, steps: int, blocks: int) -> Replay:
    """What so many steps of a writer have done to its blocks."""
    draw, block = _draws(seed, writer, steps, blocks)
    numbers = np.arange(1, steps + 1)

    def last(which: npt.NDArray[np.bool_]) -> Steps:
        table = np.zeros(blocks, np.int64)
        # Of those that go to the same place numpy keeps the last.
        table[block[which]] = numbers[which]
        return table

    return Replay(last(draw < 18), last(draw >= 30), last((draw >= 28) & (draw < 30)))


def _draws(seed: int, writer: int, steps: int, blocks: int) -> tuple[formula.Words, Steps]:
    drawn = formula.draws_of(seed, writer, steps)
    block = (drawn >> np.uint64(16)) % np.uint64(blocks)
    return drawn & np.uint64(31), block.astype(np.int64)


def review(image: Path, seed: int, size: int, patience: int, writers: Writers) -> DiskReview:
    """Hold an image of ``size`` bytes against what its writers were told."""
    depth = len(writers.steps)
    words = np.fromfile(image, "<u8", count=size // 8).reshape(-1, formula.WORDS_PER_PAGE)
    wrong: list[WrongBlock] = []
    for writer in range(depth):
        wrong += _wrong_of(words, seed, writer, writers)
    bad = [first for first, count in zip(writers.first_bad, writers.bad, strict=True) if count]
    return DiskReview(
        wrong=tuple(sorted(wrong, key=lambda found: found.block)),
        read_bad=sum(writers.bad),
        first_read_bad=min(bad, default=None),
        unanswered=sum(map(bool, writers.stuck)),
        patience=patience,
        failed=sum(map(bool, writers.failed)),
        acknowledged=sum(writers.steps),
    )


def _wrong_of(words: formula.Words, seed: int, writer: int, writers: Writers) -> list[WrongBlock]:
    """What is wrong in the blocks of one writer."""
    depth, steps = len(writers.steps), writers.steps[writer]
    blocks = len(words) // depth
    numbers = np.arange(blocks, dtype=np.uint64) * np.uint64(depth) + np.uint64(writer)
    mine = words[numbers.astype(np.int64)]
    sides = [replay(seed, writer, steps, blocks)]
    if writers.busy[writer]:
        # What was on its way may have reached the disk or not.
        sides.append(replay(seed, writer, steps + _IN_FLIGHT, blocks))
    right = np.zeros(blocks, np.bool_)
    for side in sides:
        right |= _holds(mine, seed, numbers, side)
    return [
        WrongBlock(int(numbers[at]), _described(mine[at], seed, int(numbers[at]), _last(sides[0], at), steps))
        for at in np.flatnonzero(~right).tolist()
    ]


def _holds(words: formula.Words, seed: int, numbers: formula.Words, side: Replay) -> npt.NDArray[np.bool_]:
    """Which blocks hold what they must after a replay."""
    zero = ~words.any(axis=1)
    must_be_zero = side.zeroed >= side.written  # both 0: never written
    may_be_zero = must_be_zero | (side.discarded > side.written)
    written = formula.holds(words, seed, numbers, side.written.astype(np.uint64))
    found: npt.NDArray[np.bool_] = (zero & may_be_zero) | (written & ~must_be_zero)
    return found


def _last(side: Replay, at: int) -> int:
    """The last step that changed a block."""
    return int(max(side.written[at], side.zeroed[at], side.discarded[at]))


def _described(words: formula.Words, seed: int, block: int, last: int, steps: int) -> str:
    """What a wrong block holds instead of what step ``last`` left there."""
    must = f"step {last} was acknowledged" if last else "nothing was written there"
    if not words.any():
        return f"block {block} is zero; {must}"
    found = int(formula.generations_of(words[:1], seed, np.array([block], np.uint64))[0])
    # It begins as none of this writer's does: another block, or what nobody wrote.
    if not 0 < found <= steps + _IN_FLIGHT:
        return f"block {block} holds what no step has written; {must}"
    differing = np.flatnonzero(words != formula.page_words(seed, block, found))
    if differing.size:
        at = 8 * int(differing[0])
        return f"block {block} is half: step {found} up to byte {at}, something else from there; {must}"
    return f"block {block} holds step {found}; {must}"
