# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's model specific registers, held against what they were."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from harness.errors import GuestRefused
from harness.evidence.msrs import read_msrs
from harness.guest.control import GuestControl
from harness.guestview.msrs import STEADY, LostRegister, review_registers
from harness.memory.record import Block
from harness.verdict.judge import BlockState, JudgeInput, judge


class FakeControl:
    """A guest whose registers hold their own number; the one that is ``missing`` is not there."""

    def __init__(self, missing: int = -1, *, refuses: bool = False) -> None:
        self.missing, self.refuses = missing, refuses

    def call(self, verb: str, cpu: int, *numbers: int, deadline: Any) -> dict[str, object]:
        del deadline
        assert verb == "msr-values"
        if self.refuses:
            raise GuestRefused("/dev/cpu/0/msr: No such file or directory")
        assert len(numbers) <= 39, "the agent takes 40 words"
        values = [None if number == self.missing else f"{number + cpu:016x}" for number in numbers]
        return {"values": values}


def read(control: FakeControl, vcpus: int = 2) -> Any:
    return read_msrs(cast(GuestControl, control), vcpus)


def findings(before: Any, after: Any) -> list[str]:
    none = np.zeros(4, dtype=np.bool_)
    case = JudgeInput("off", (BlockState(Block("pc.ram", 4, ()), np.array([], np.int64), none, none),))
    found = judge(case, review_registers(before, after)).findings
    return [f"{one.rule}: {one.text}" for one in found]


def test_every_register_of_every_processor_is_read() -> None:
    first, second = read(FakeControl(missing=0xC0000083))
    assert list(first) == list(STEADY)
    assert first["cstar"] is None
    assert second["star"] == 0xC0000081 + 1
    assert len(set(STEADY.values())) == len(STEADY)


def test_what_has_not_changed_is_no_finding() -> None:
    before = read(FakeControl())
    assert findings(before, read(FakeControl())) == []
    assert review_registers(before, before).read == 2 * len(STEADY)
    # A processor that was plugged out meanwhile.
    assert findings(before, read(FakeControl(), vcpus=1)) == []


def test_one_that_is_lost_is_named() -> None:
    before = read(FakeControl())
    after = [dict(registers) for registers in before]
    after[1]["cstar"] = 0
    [text] = findings(before, after)
    assert text == (
        "msr-lost: the guest's model specific registers have changed: CPU 1: cstar 0xc0000084 -> 0x0"
    )
    assert str(LostRegister(0, "xss", 7, None)) == "CPU 0: xss 0x7 -> absent"
    [text] = findings(before, read(FakeControl(missing=0x277)))
    assert "CPU 0: pat 0x277 -> absent" in text
    [text] = findings(before, [dict.fromkeys(STEADY, 1), before[1]])
    assert f"and {len(STEADY) - 4} more" in text


def test_a_kernel_that_cannot_read_them_is_not_asked_again() -> None:
    assert read(FakeControl(refuses=True)) is None
