# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's clocks while it is migrated: see docs/oracle.md, "What a guest would notice"."""

from __future__ import annotations

from harness.testing import Freepage


def test_clocks_are_right_and_timers_fire(freepage: Freepage) -> None:
    run = freepage.run("clocks")
    assert run.verdict == "pass", run
    assert run.result.observed["timers-fired"] > 20


def test_clocks_of_a_guest_that_comes_back(freepage: Freepage) -> None:
    run = freepage.run("there-and-back", set={"workload": "{kind: clocks}"})
    assert run.verdict == "pass", run
