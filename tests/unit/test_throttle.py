# SPDX-License-Identifier: GPL-2.0-or-later
"""How a QEMU slows the guest down: what it says of it, what is wrong with that, and what it shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.memory.record import Block
from harness.migration.qmp import CommandError
from harness.migration.throttle import look_at_throttle, throttle_in
from harness.report.throttle import Throttle
from harness.scenario.expectations import Expect
from harness.verdict.judge import BlockState, JudgeInput, judge
from harness.verdict.throttle import ThrottleLook, Throttling, VcpuLimit, not_slowed, throttle_findings

LIMIT = VcpuLimit(0, 1, 40)


def look(syncs: int, percent: int = 0, **more: Any) -> ThrottleLook:
    return ThrottleLook(at=float(syncs), syncs=syncs, percent=percent, **more)


class AskedMonitor:
    def __init__(self, limits: object = None) -> None:
        self.limits = limits

    def execute(self, command: str) -> object:
        if command == "query-vcpu-dirty-limit":
            if self.limits is None:
                raise CommandError("no dirty page limit")
            return self.limits
        return {
            "ram": {"dirty-sync-count": 4},
            "cpu-throttle-percentage": 40,
            "dirty-limit-throttle-time-per-round": 7,
        }


def test_what_qemu_says() -> None:
    assert throttle_in({"status": "setup"}, 1.0) == ThrottleLook(1.0, 0)
    assert throttle_in("nonsense", 1.0) == ThrottleLook(1.0, 0)
    answer = {"ram": {"dirty-sync-count": 4}, "cpu-throttle-percentage": 40}
    assert throttle_in(answer, 2.0, over=True) == ThrottleLook(2.0, 4, 40, over=True)
    monitor: Any = AskedMonitor([{"cpu-index": 0, "limit-rate": 1, "current-rate": 40}])
    assert look_at_throttle(monitor, 3.0, limits=True) == ThrottleLook(3.0, 4, 40, 7, (LIMIT,))
    assert look_at_throttle(AskedMonitor(), 3.0, limits=True).limits == ()  # type: ignore[arg-type]
    assert look_at_throttle(monitor, 3.0).limits == ()


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ((look(1), look(3, 20), look(4, 50), look(5, over=True)), ""),
        # dirty-limit's own limits QEMU leaves to a source that ends.
        ((look(1), look(3, limits=(LIMIT,)), look(5, over=True, limits=(LIMIT,))), ""),
        ((look(1), look(3, 20), look(4, 20, over=True)), "was over, and the source's QEMU still had the"),
        (
            (look(1, 40), look(2, 40)),
            "hardly begun, and the source's QEMU had the guest's vCPUs sleep for 40 %",
        ),
        ((look(0, limits=(LIMIT,)),), "limited the guest's vCPUs to 1 MB/s, from before it"),
    ],
)
def test_a_guest_that_qemu_has_forgotten(looks: tuple[ThrottleLook, ...], words: str) -> None:
    found = throttle_findings(looks)
    assert [one.rule for one in found] == (["throttle-kept"] if words else [])
    assert all(words in one.text for one in found)


def test_what_was_on_and_has_not_shown_is_said() -> None:
    on, idle = ["events", "auto-converge"], (look(1), look(2), look(3, over=True))
    assert not_slowed(idle, ["events"]) is None
    assert "auto-converge was on, and the source's QEMU has not" in str(not_slowed(idle, on))
    assert not_slowed(idle, on, wanted=False) is None
    assert str(not_slowed(idle, [], wanted=True)).startswith("the source's QEMU has not slowed")
    assert not_slowed((look(1), look(3, 20)), on) is None
    assert not_slowed((look(1), look(3, limits=(LIMIT,))), ["dirty-limit"]) is None
    # What is from before, or stays, shows nothing of this migration.
    assert not_slowed((look(1, 20), look(3, 20, over=True)), on) is not None


@pytest.mark.parametrize(("most", "rules"), [(39, ["throttle-percent-min"]), (40, [])])
def test_how_much_is_an_expectation(most: int, rules: list[str]) -> None:
    none = np.zeros(1, dtype=np.bool_)
    state = BlockState(Block("pc.ram", 1, ()), np.array([], dtype=np.int64), none, none)
    case = JudgeInput("off", (state,), expect=Expect(throttle_percent_min=40))
    assert [one.rule for one in judge(case, Throttling(most)).findings] == rules
    case = JudgeInput("off", (state,))
    assert judge(case, Throttling(0)).findings == ()


def test_the_result_has_what_changed() -> None:
    assert Throttle.of(()) is None
    told = Throttle.of((look(1), look(2), look(3, 20), look(4, 20), look(5, 50), look(6, over=True)))
    assert told is not None
    assert [(step.syncs, step.percent, step.over) for step in told.steps] == [
        (1, 0, False),
        (3, 20, False),
        (5, 50, False),
        (6, 0, True),
    ]
    assert (told.percent_max, told.looks, told.words) == (50, 6, "50 % at most")
    limited = Throttle.of((look(1), look(3, sleep_us=900, limits=(LIMIT,))))
    assert limited is not None
    assert limited.words == "each vCPU to 1 MB/s, with sleeps of up to 900 us"
    idle = Throttle.of((look(1),))
    assert idle is not None
    assert idle.words == "not at all"
