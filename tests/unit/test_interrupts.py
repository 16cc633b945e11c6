# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload ``interrupts``: what its report means, and the program itself, run on the host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.guestview.interrupts import InterruptReview, review
from harness.guestview.report import Report
from harness.verdict.judge import JudgeInput, judge
from tests.unit.test_workloads import compiled


def report(**said: list[int]) -> Report:
    right = {"steps": [9, 8, 7, 0], "stuck": [0] * 4, "failed": [0] * 4, "longest_us": [2000, 1, 999, 0]}
    return Report({**right, **said}, 0.0, 0.0)


def test_chains_that_go_on() -> None:
    assert review(report(), 5) == InterruptReview((), (), 24, 2, 5)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"stuck": [0, 1, 0, 0]}, "the guest waits for its disk, and was not woken for 5 s"),
        ({"failed": [0, 0, 0, 5]}, "the guest waits for another processor (error 5) no more"),
    ],
)
def test_one_that_is_lost_is_a_finding(said: dict[str, list[int]], text: str) -> None:
    found = judge(JudgeInput(arm="off", blocks=()), review(report(**said), 5)).findings
    assert [(one.rule, one.text) for one in found if one.rule == "interrupt-lost"] == [
        ("interrupt-lost", text)
    ]


def test_a_report_without_a_chain_is_none() -> None:
    with pytest.raises(MachineryError, match="no 4 numbers 'stuck'"):
        review(report(stuck=[0, 0]), 5)


def test_the_program(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    program = compiled(tmp_path, DISK=str(disk))
    done = subprocess.run(
        [program, "load", "interrupts", "7", "0", "keep=4096"],
        input=b"stop\n",
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    loaded, stopped = (json.loads(line) for line in done.stdout.splitlines())
    assert loaded["pages"] == 1
    assert stopped["steps"] >= 24
