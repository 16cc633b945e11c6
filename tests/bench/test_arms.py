# SPDX-License-Identifier: GPL-2.0-or-later
"""The three arms side by side: bytes and milliseconds of the same migration.

Run with ``pytest -s tests/bench/test_arms.py``.  Prints; asserts that memory was
right, and nothing of bytes or times.  Goals (2 GiB, 1500 MiB of noise, TCG): in
arm info (sent - head) at most 1.10 times the floor, for ``freed`` and for
``fragmented``; and less, and faster, than both other arms in the same run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.result import Result

pytestmark = pytest.mark.bench

SETTINGS = ("--accel", "tcg", "--memory", "2GiB", "--set", "workload.noise=1500MiB", "--seed", "1")


def run(scenario: str, arm: str, out: Path) -> Result:
    command = [sys.executable, "-P", "-m", "harness", "run", scenario, "--arm", arm, "--json", *SETTINGS]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode in (0, 4), done.stderr
    result = Result.from_json(done.stdout)
    assert result.pages.wrong == 0
    return result


@pytest.mark.parametrize("scenario", ["freed", "fragmented"])
def test_arms(scenario: str, tmp_path: Path) -> None:
    print(f"\n{scenario}, 2 GiB, 1500 MiB of noise, TCG")
    print("  arm    sent      floor     head      (sent-head)/floor  total - held  down    skipped")
    for arm in ("off", "hint", "info"):
        result = run(scenario, arm, tmp_path / arm)
        sent, time = result.bytes, result.time
        ratio = f"{sent.sent_over_floor:.3f}" if sent.sent_over_floor is not None and arm == "info" else "-"
        print(
            f"  {arm:5} {sent.sent / 1e6:6.0f} MB {sent.floor / 1e6:7.0f} MB {sent.head / 1e6:7.1f} MB"
            f"  {ratio:17}  {time.total_ms - time.held_ms:6} ms     {time.downtime_ms:5} ms"
            f"  {result.pages.skipped_percent:4.1f} %"
        )
