# SPDX-License-Identifier: GPL-2.0-or-later
"""Forced races: a write in each window in which it could be lost, and the same verdict every time."""

from __future__ import annotations

import os

import pytest

from harness.testing import Freepage, Run

#: How often ci/nightly repeats each race.
REPEATS = int(os.environ.get("FREEPAGE_RACE_REPEATS", "100"))
VERDICTS = {"race-w1": "pass", "race-w2": "pass", "race-w3": "pass", "race-w4": "pass", "race-w5": "fail"}
#: By which rule W5 is found: the one thing that the contract forbids the guest.
W5 = {"reported-though-owned", "reported-undecided"}


def judge(run: Run, race: str) -> None:
    assert run.result.verdict == VERDICTS[race], str(run)
    rules = {finding.rule for finding in run.result.findings}
    assert (rules & W5 != set()) == (race == "race-w5"), str(run)


# The other two are controls of the sample of faults.
@pytest.mark.parametrize("race", ["race-w1", "race-w4", "race-w5"])
def test_a_forced_race(freepage: Freepage, race: str) -> None:
    judge(freepage.run(race, seed=7, memory="192MiB"), race)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("race", VERDICTS)
def test_the_same_seed_gives_the_same_verdict_every_time(freepage: Freepage, race: str) -> None:
    for _ in range(REPEATS):
        judge(freepage.run(race, seed=7, memory="192MiB"), race)
