# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliberate faults are caught, and what is right is not.

``ci/test`` runs a sample; ``ci/nightly`` all that emulation can show, and as many
runs without any fault.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.testing import Freepage


def campaign(freepage: Freepage, *options: str, seconds: int) -> dict[str, Any]:
    """``freepage faults run``: its report, and its words in the failure if it is not as it should be."""
    words = ["faults", "run", "--json", "--jobs", "2", "--out", str(freepage.folder / "campaign"), *options]
    output = freepage.command(*words, timeout=seconds)
    assert output.exit_code == 0, str(output)
    report: dict[str, Any] = json.loads(output.stdout)
    return report


def test_faults_sample(freepage: Freepage) -> None:
    report = campaign(freepage, "--sample", seconds=1100)
    assert report["caught"] == report["total"]
    assert report["total"] >= 8
    # What was caught leaves nothing but its row.
    assert all(not fault["run"] for fault in report["faults"])


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_fault_that_emulation_can_show(freepage: Freepage) -> None:
    report = campaign(freepage, seconds=2 * 3600)
    missed = [fault["id"] for fault in report["faults"] if fault["outcome"] != "caught"]
    from harness.faults.catalogue import catalogue

    # One that is known to be missed may be caught by luck.
    assert set(missed) <= {fault.id for fault in catalogue().faults if fault.known_missed}


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_nothing_is_found_where_nothing_is_wrong(freepage: Freepage) -> None:
    report = campaign(freepage, "--clean", seconds=2 * 3600)
    assert all(control["outcome"] == "ok" for control in report["controls"])
