# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the migration thread holds the bitmap's mutex to apply an answer, for each GiB that is free.

Run with ``pytest -s tests/bench/test_applying.py``.  Prints; asserts no time.  Goal:
at most 0.1 ms for each GiB.  The guest has 1 TiB, all of it free and never touched,
and is none: the qtest of the series drives the device (docs/qtests.md), and fails if
a chunk is dropped.  The figure is the device's own counter ``applying-ns``, by the wall
clock; a busy machine makes it larger.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.toolchain import Toolchain
from harness.toolchain.qtests import OUR_TEST

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

TIMES = 5
GIB = 1024
GOAL_MS_PER_GIB = 0.1
_FIGURE = re.compile(r"# (\d+) ns to apply 1 TiB")


def test_applying_a_tebibyte(tmp_path: Path) -> None:
    qtests = Toolchain().qtests()
    took: list[float] = []
    for attempt in range(TIMES):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        done = qtests.run(OUR_TEST, folder, prefix="/x86_64/virtio-balloon/info/tebibyte", seconds=300)
        assert done.ok, done
        figure = _FIGURE.search(done.output)
        assert figure is not None, done.output
        took.append(int(figure[1]) / 1e6 / GIB)
    print(
        f"\napplied: {min(took):.3f} to {max(took):.3f} ms for each free GiB in {TIMES} runs "
        f"(goal: {GOAL_MS_PER_GIB})"
    )
