# SPDX-License-Identifier: GPL-2.0-or-later
"""The three arms side by side: bytes and milliseconds of the same migration.

Run with ``pytest -s tests/bench/test_arms.py``.  Prints; asserts that memory was
right, and nothing of bytes or times.  Goals (2 GiB, 1500 MiB of noise, TCG): in
arm info (sent - head) at most 1.10 times the floor, for ``freed`` and for
``fragmented``; and less, and faster, than both other arms in the same run.
"""

from __future__ import annotations

import pytest

from harness.report.result import Result
from harness.testing import Freepage, RunOptions

pytestmark = pytest.mark.bench

SETTINGS: RunOptions = {"accel": "tcg", "memory": "2GiB", "set": {"workload.noise": "1500MiB"}, "seed": 1}


def run(freepage: Freepage, scenario: str, arm: str) -> Result:
    done = freepage.with_defaults(**SETTINGS).run(scenario, arm=arm, timeout=900)
    assert done.exit_code in (0, 4), done.stderr
    assert done.result.pages.wrong == 0
    return done.result


@pytest.mark.parametrize("scenario", ["freed", "fragmented"])
def test_arms(freepage: Freepage, scenario: str) -> None:
    print(f"\n{scenario}, 2 GiB, 1500 MiB of noise, TCG")
    print("  arm    sent      floor     head      (sent-head)/floor  total - held  down    skipped")
    for arm in ("off", "hint", "info"):
        result = run(freepage, scenario, arm)
        sent, time = result.bytes, result.time
        ratio = f"{sent.sent_over_floor:.3f}" if sent.sent_over_floor is not None and arm == "info" else "-"
        print(
            f"  {arm:5} {sent.sent / 1e6:6.0f} MB {sent.floor / 1e6:7.0f} MB {sent.head / 1e6:7.1f} MB"
            f"  {ratio:17}  {time.total_ms - time.held_ms:6} ms     {time.downtime_ms:5} ms"
            f"  {result.pages.skipped_percent:4.1f} %"
        )
