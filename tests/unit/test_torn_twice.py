# SPDX-License-Identifier: GPL-2.0-or-later
"""A page that was written again since the switch to postcopy, and once more when the guest was stopped."""

from __future__ import annotations

import numpy as np

from harness.evidence.after_switch import WorkloadSteps, _torn
from harness.memory import formula
from harness.scenario.load import load_scenario
from harness.scenario.resolve import MachineFacts, resolve


def test_what_is_behind_may_be_of_a_step_since_the_switch() -> None:
    scenario = load_scenario("postcopy-runs").model_copy(update={"seed": 226578510383302733})
    steps = WorkloadSteps(resolve(scenario, MachineFacts(memory_available=1 << 40)))

    def content(step: int) -> formula.Words:
        key = formula.keys(scenario.seed or 0, np.array([954], np.uint64), np.array([step], np.uint64))
        return formula.words_of(formula._mix(key + formula._STRIDES[:1])[0])

    before, since, now = content(10825), content(11756), content(11986)
    torn = np.concatenate([now[:436], since[436:]])
    other = np.concatenate([now[:436], ~since[436:]])
    rows = np.stack([before, before]), np.stack([torn, other])
    found = _torn(*rows, steps.of(rows[0]), steps, 11000)
    assert found.tolist() == [True, False]
    # What is behind must not be of a step that the source would have seen.
    assert _torn(*rows, steps.of(rows[0]), steps, 11800).tolist() == [False, False]
