# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's clocks while it is migrated: see docs/oracle.md, "What a guest would notice"."""

from __future__ import annotations

from pathlib import Path

from harness.testing import Freepage


def test_clocks_are_right_and_timers_fire(freepage: Freepage) -> None:
    run = freepage.run("clocks")
    assert run.verdict == "pass", run
    assert run.result.observed["timers-fired"] > 20


def test_clocks_of_a_guest_that_comes_back(freepage: Freepage, freepage_folder: Path) -> None:
    scenario = freepage_folder / "back.yaml"
    scenario.write_text("name: back\nworkload: {kind: clocks}\nmoves: [{}, {}]\n", encoding="utf-8")
    run = freepage.run(str(scenario))
    assert run.verdict == "pass", run
    assert [move.ended for move in run.result.moves] == ["completed"] * 2
