# SPDX-License-Identifier: GPL-2.0-or-later
"""The hunt finds a fault that it is not told of, and what it keeps replays."""

from __future__ import annotations

import json

import pytest

from harness.testing import Freepage

FAULT = "page-tail-lost"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_fault_is_found_and_made_small(freepage: Freepage) -> None:
    words = ["--fault", FAULT, "--seed", "1", "--minutes", "40", "--until-found", "--json"]
    out = freepage.folder / "hunt"
    output = freepage.command("hunt", *words, "--out", str(out), timeout=3000)
    assert output.exit_code == 1, str(output)
    report = json.loads(output.stdout)
    [found] = report["found"]
    assert found["signature"].startswith("differs-though-sent")
    assert found["smallest"], str(output)
    # With the fault the scenario fails, without it it does not.
    replay = ["run", found["file"], "--out"]
    assert freepage.command(*replay, str(freepage.folder / "bad"), "--fault", FAULT).exit_code == 1
    assert freepage.command(*replay, str(freepage.folder / "good")).exit_code == 0
    # The same folder, without the fault, is another QEMU's: what was kept is tried first, and forgotten.
    again = ["hunt", "--seed", "1", "--minutes", "1", "--json", "--out", str(out)]
    clean = json.loads(freepage.command(*again, timeout=600).stdout)
    assert clean["runs"] >= 1
