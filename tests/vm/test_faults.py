# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliberate faults are caught, and what is right is not.

``ci/test`` runs a sample; ``ci/nightly`` all that emulation can show, and as many
runs without any fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def campaign(folder: Path, *options: str, seconds: int) -> dict[str, object]:
    """``freepage faults run``: its report, and its words in the failure if it is not as it should be."""
    words = ["faults", "run", "--json", "--jobs", "2", "--out", str(folder / "campaign"), *options]
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "harness", *words],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert ended.returncode == 0, f"exit status {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    report: dict[str, object] = json.loads(ended.stdout)
    return report


def test_faults_sample(folder: Path) -> None:
    report = campaign(folder, "--sample", seconds=1100)
    assert report["caught"] == report["total"]
    assert report["total"] >= 8
    # What was caught leaves nothing but its row.
    assert all(not fault["run"] for fault in report["faults"])


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_fault_that_emulation_can_show(folder: Path) -> None:
    report = campaign(folder, seconds=2 * 3600)
    missed = [fault["id"] for fault in report["faults"] if fault["outcome"] != "caught"]
    from harness.faults.catalogue import catalogue

    # One that is known to be missed may be caught by luck.
    assert set(missed) <= {fault.id for fault in catalogue().faults if fault.known_missed}


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_nothing_is_found_where_nothing_is_wrong(folder: Path) -> None:
    report = campaign(folder, "--clean", seconds=2 * 3600)
    assert all(control["outcome"] == "ok" for control in report["controls"])
