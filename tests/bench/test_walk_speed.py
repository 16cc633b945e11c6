# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the outside walk proves its lists, beside a plain read of the memmap that they are in.

Run with ``pytest -s tests/bench/test_walk_speed.py``.  Prints; asserts no time.
Goal: a million blocks a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.memory.walk.graph import AddressMap, FreeBlocks, Graph, Heads
from harness.memory.walk.lists import prove_links

pytestmark = pytest.mark.bench

BASE = 0xFFFF_EA00_0000_0000
PAGE = 64


def lists(count: int, how_many: int) -> tuple[FreeBlocks, Heads, AddressMap]:
    """Every other frame is free by itself; on few lists or many, in no order: the worst that there is."""
    frames = 2 * np.arange(count, dtype=np.int64)
    address = np.uint64(BASE) + frames.astype(np.uint64) * np.uint64(PAGE)
    heads = np.uint64(0xFFFF_8880_0000_0000) + np.arange(how_many, dtype=np.uint64) * np.uint64(16)
    following, previous = np.empty(count, np.uint64), np.empty(count, np.uint64)
    ends = np.empty((how_many, 2), np.uint64)
    shuffled = np.random.default_rng(1).permutation(count)
    for number, part in enumerate(np.array_split(shuffled, how_many)):
        chain = np.concatenate((heads[number : number + 1], address[part], heads[number : number + 1]))
        following[part], previous[part] = chain[2:], chain[:-2]
        ends[number] = chain[1], chain[-2]
    nothing = np.zeros(count, dtype=np.uint64)
    on_lists = Heads(heads, ends[:, 0].copy(), ends[:, 1].copy(), str)
    return (
        FreeBlocks(frames, following, previous, nothing, nothing),
        on_lists,
        AddressMap(BASE, PAGE, 2 * count, heads),
    )


def best(action: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def plain(descriptor: int, size: int) -> None:
    buffer = memoryview(bytearray(1 << 20))
    for offset in range(0, size, 1 << 20):
        os.preadv(descriptor, [buffer], offset)


@pytest.mark.parametrize(("count", "how_many"), [(1 << 20, 1), (1 << 20, 500), (1 << 22, 5)])
def test_the_proof_of_scattered_blocks(count: int, how_many: int, capsys: pytest.CaptureFixture[str]) -> None:
    blocks, heads, places = lists(count, how_many)
    proving = best(lambda: prove_links(Graph.of(blocks, heads, places)))
    size = 2 * count * PAGE
    descriptor = os.memfd_create("memmap")
    os.pwrite(descriptor, bytes(size), 0)
    reading = best(lambda: plain(descriptor, size))
    os.close(descriptor)
    with capsys.disabled():
        print(
            f"\n{count} blocks on {how_many} lists: {proving:.3f} s, {count / proving / 1e6:.1f} M/s"
            f" (goal: 1); a plain read of their memmap takes {reading:.3f} s ({proving / reading:.1f} times)"
        )
