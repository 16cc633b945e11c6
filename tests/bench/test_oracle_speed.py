# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the oracle reads, beside a plain read of the same bytes in the same run.

Run with ``pytest -s tests/bench/test_oracle_speed.py``.  Prints ratios; asserts none.
Goal: comparing reads at least half as fast as a plain read of both images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.memory.compare import compare
from harness.memory.digest import page_digests
from harness.memory.image import RamImage
from harness.units import PAGE_SIZE

pytestmark = pytest.mark.bench

SIZE = 1 << 30
STEP = 1 << 20
#: In which pages of each 1 MiB there is data.
KINDS = {"full": slice(None), "every other page": slice(None, None, 2), "empty": slice(0, 0)}


def image(kind: str) -> RamImage:
    fd = os.memfd_create(kind)
    os.ftruncate(fd, SIZE)
    words = np.random.default_rng(1).integers(0, 2**63, STEP // 8, dtype=np.uint64)
    for offset in range(0, SIZE, STEP):
        pages = (words + np.uint64(offset)).reshape(-1, PAGE_SIZE // 8)
        numbers = range(len(pages))[KINDS[kind]]
        if kind == "full":
            os.pwrite(fd, pages.tobytes(), offset)
            continue
        for number in numbers:
            os.pwrite(fd, pages[number].tobytes(), offset + number * PAGE_SIZE)
    return RamImage(fd, SIZE, kind)


def plain(one: RamImage) -> None:
    buffer = memoryview(bytearray(STEP))
    for offset in range(0, SIZE, STEP):
        os.preadv(one._fd, [buffer], offset)


def best(action: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@pytest.mark.parametrize("kind", KINDS)
def test_comparison_against_a_plain_read(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with image("full") as source, image(kind) as destination:
        reading = best(lambda: (plain(source), plain(destination)))
        comparing = best(lambda: compare(source, destination))
        digesting = best(lambda: page_digests(source))
    with capsys.disabled():
        print(
            f"\nfull and {kind}, 1 GiB a side: plain read {reading:.3f} s, compare {comparing:.3f} s "
            f"(reads {reading / comparing:.2f} times as fast as a plain read, goal at least 0.5), "
            f"digests of the source {digesting:.3f} s"
        )
