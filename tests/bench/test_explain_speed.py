# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing and explaining two whole guests, beside reading both once with numpy; and what memory it takes.

Run with ``pytest -s tests/bench/test_explain_speed.py``; ``FREEPAGE_BENCH_GIB=4`` for guests of
4 GiB, which takes 8 GiB of the machine's memory.  Prints; asserts no time.
Goals: at most twice the time, at most 5 % of the guest's memory.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.explain.picture import picture
from harness.explain.store import PAGES_FILE, Kept
from harness.memory.compare import compare
from harness.memory.digest import RequestDigests
from harness.memory.image import RamImage
from harness.memory.record import Accept, Block, PackedFlags, Request
from harness.memory.walk import NONE, FreeWalk, Kind
from harness.memory.walk.zones import Zone
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, JudgeInput, RequestWitness, judge

pytestmark = pytest.mark.bench

SIZE = int(os.environ.get("FREEPAGE_BENCH_GIB", "1")) << 30
PAGES = SIZE // PAGE_SIZE
STEP = 1 << 20
TYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
REQUEST = 5


def memory(name: str, free: np.ndarray, there: bool) -> RamImage:
    """Noise everywhere; on the destination nothing in the free pages."""
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, SIZE)
    words = np.random.default_rng(1).integers(1, 2**63, STEP // 8, dtype=np.uint64)
    per_step = STEP // PAGE_SIZE
    for number, offset in enumerate(range(0, SIZE, STEP)):
        pages = (words + np.uint64(offset)).reshape(per_step, -1)
        if there:
            here = free[number * per_step : (number + 1) * per_step]
            for row in np.flatnonzero(~here).tolist():
                os.pwrite(descriptor, pages[row].tobytes(), offset + row * PAGE_SIZE)
        else:
            os.pwrite(descriptor, pages.tobytes(), offset)
    return RamImage(descriptor, SIZE, name)


def walk_of(free: np.ndarray) -> FreeWalk:
    kind = np.where(free, np.uint8(Kind.FREE), np.uint8(Kind.ANONYMOUS)).astype(np.uint8)
    zero = np.where(free, 0, NONE).astype(np.uint8)
    types = np.where(free, 1, NONE).astype(np.uint8)
    blocks = np.zeros((1, 11, len(TYPES)), dtype=np.int64)
    return FreeWalk("bench", (Zone(0, 0, "DMA32", 0, PAGES),), 11, TYPES, kind, zero, zero, types, blocks)


def plain(images: tuple[RamImage, RamImage]) -> None:
    """Both, once, into an array: what anybody who compares them has to do at least."""
    buffer = np.empty(STEP // 8, dtype=np.uint64)
    for image in images:
        for offset in range(0, SIZE, STEP):
            os.preadv(image._fd, [buffer], offset)
            buffer.any()


class Oracle:
    """What a run does with two stopped guests, but for the guests."""

    def __init__(self, images: tuple[RamImage, RamImage], free: np.ndarray, folder: Path) -> None:
        self.images, self.free, self.folder = images, free, folder
        self.digests = RequestDigests()
        self.walk = walk_of(free)
        packed = PackedFlags.pack(free)
        self.log = (Request(REQUEST, 1, 0, PAGES), Accept(REQUEST, 1, "pc.ram", 0, packed, packed))
        self.rounds = 0

    def at_request(self) -> None:
        """In the hold; the walk itself has a bench of its own."""
        self.digests.take(REQUEST, {"pc.ram": self.images[0]})

    def at_switch_over(self) -> None:
        source, destination = self.images
        found = compare(source, destination, digests=True)
        assert found.digests is not None
        now = {"pc.ram": found.digests}
        block = Block("pc.ram", PAGES, ((0, 0, SIZE),))
        state = BlockState(
            block, found.differing, found.zero_on_source, found.zero_on_destination, ~self.free,
            found.hole_on_source,
        )  # fmt: skip
        same = np.ones(PAGES, dtype=np.bool_)
        witness = RequestWitness(self.walk, self.walk, {"pc.ram": same})
        unchanged = self.digests.unchanged(now)
        judgement = judge(
            JudgeInput("info", (state,), self.log, unchanged, witnesses={REQUEST: witness}, quiet=True)
        )
        assert judgement.verdict == "pass", judgement.reason
        looks = [((REQUEST, "request"), self.walk), ((REQUEST, "answer"), self.walk), ((0, "end"), self.walk)]
        kept = Kept.of(judgement, looks, {})
        self.rounds += 1
        kept.save(self.folder / f"{self.rounds}-{PAGES_FILE}")
        picture(kept, "bench")


def best(action: Callable[[], object], times: int = 3) -> float:
    """CPU seconds: the machine may have others on it."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        action()
        seconds.append(time.process_time() - began)
    return min(seconds)


@pytest.mark.parametrize("kind", ["freed", "fragmented"])
def test_two_guests(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = np.zeros(PAGES, dtype=np.bool_)
    free[:: 2 if kind == "fragmented" else 1] = True
    if kind == "freed":
        free[: PAGES // 4] = False
    with memory("source", free, False) as source, memory("destination", free, True) as destination:
        oracle = Oracle((source, destination), free, tmp_path)
        reading = best(lambda: plain((source, destination)))
        oracle.at_request()
        whole = best(oracle.at_switch_over)
        tracemalloc.start()
        again = Oracle((source, destination), free, tmp_path / "again")
        again.folder.mkdir()
        again.at_request()
        again.at_switch_over()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    size = max(path.stat().st_size for path in tmp_path.glob(f"*-{PAGES_FILE}"))
    with capsys.disabled():
        print(
            f"\n{kind}, {SIZE >> 30} GiB a side: reading both with numpy {reading:.2f} s of CPU; comparing, "
            f"judging, keeping, drawing {whole:.2f} s: {whole / reading:.2f} times (goal: 2); memory at most "
            f"{100 * peak / SIZE:.2f} % of the guest's (goal: 5); {PAGES_FILE} has {size >> 10} KiB"
        )
