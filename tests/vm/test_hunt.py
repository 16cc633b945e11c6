# SPDX-License-Identifier: GPL-2.0-or-later
"""The hunt finds a fault that it is not told of, and what it keeps replays."""

from __future__ import annotations

import json

import pytest

from harness.testing import Freepage

FAULT = "page-tail-lost"
ONLY = "workload,guest.vcpus,migration.bandwidth"
#: What the source and the destination do with XBZRLE alone.
XBZRLE = {"save_xbzrle_page", "load_xbzrle"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_fault_is_found_and_made_small(freepage: Freepage) -> None:
    words = ["--fault", FAULT, "--seed", "1", "--minutes", "40", "--until-found", "--json"]
    # Few keys, so that it is soon known of which parts every one is needed.
    words += ["--only", ONLY]
    out = freepage.folder / "hunt"
    output = freepage.command("hunt", *words, "--out", str(out), timeout=3000)
    assert output.exit_code == 1, str(output)
    report = json.loads(output.stdout)
    [found] = report["found"]
    # Which rule it is depends on what else was drawn: arm, strictness, walk.
    assert found["signature"].startswith(("differs-", "lost-since-switch")), found
    assert found["smallest"], str(output)
    # With the fault the scenario fails, without it it does not.
    replay = ["run", found["file"], "--out"]
    assert freepage.command(*replay, str(freepage.folder / "bad"), "--fault", FAULT).exit_code == 1
    assert freepage.command(*replay, str(freepage.folder / "good")).exit_code == 0
    # The same folder, without the fault, is another QEMU's: what was kept is tried first, and forgotten.
    again = ["hunt", "--seed", "1", "--minutes", "3", "--only", ONLY, "--json", "--out", str(out)]
    clean = json.loads(freepage.command(*again, timeout=600).stdout)
    assert clean["runs"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_mode_reaches_what_no_run_without_it_does(freepage: Freepage) -> None:
    """QEMU counts its lines: both sides' are there, and the next hunt in the folder adds to them."""
    words = ["hunt", "--coverage", "--seed", "1", "--json", "--out", str(freepage.folder / "hunt")]

    def encoders(*more: str) -> tuple[set[str], dict[str, object]]:
        output = freepage.command(*words, *more, timeout=2400)
        assert output.exit_code == 0, str(output)
        code = json.loads(output.stdout)["code"]
        never = {one["function"] for one in code["missed"] if not one["reached"]}
        return never & {"ram_save_page", "ram_load_precopy", *XBZRLE}, code

    never, code = encoders("--only", "guest.vcpus", "--minutes", "2")
    assert code["runs"]
    assert never == XBZRLE
    assert encoders("--only", "migration.xbzrle", "--minutes", "3")[0] == set()
