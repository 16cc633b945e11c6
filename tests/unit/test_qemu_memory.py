# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own memory over migrations that were given up: read from proc, and judged as a slope."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.events import Event
from harness.evidence.qemu_memory import own_files, own_memory
from harness.scenario.expectations import Expect
from harness.verdict.context import Analyses, Context
from harness.verdict.judge import JudgeInput, judge
from harness.verdict.rules.growth import QemuMemory, too_few_migrations

MIB = 1 << 20


def attached(pid: int, side: str = "source") -> Event:
    return Event(0, 0.0, f"{side}.qmp", "qemu-attached", {"pid": pid})


def test_what_proc_says_of_the_last_qemu(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tqemu\nRssAnon:\t    2048 kB\nRssFile:\t 9 kB\n")
    assert own_memory([attached(5), attached(7)], proc=tmp_path) == 2 * MIB
    assert own_memory([attached(7), attached(5)], proc=tmp_path) is None
    assert own_memory([attached(7, "destination")], proc=tmp_path) is None
    assert own_memory([], proc=tmp_path) is None


@pytest.mark.parametrize(
    ("after_each", "found"),
    [
        # The first ones fill caches; after that it stands, with some noise.
        ([10, 30, 40, 40, 41, 40, 40, 41], False),
        ([10, 30, 40, 44, 48, 52, 56, 60], True),
        # Once is chance.
        ([40, 40, 40, 40, 40, 40, 40, 43], False),
        # Too few to tell.
        ([40, 50, 60, 70], False),
        ([], False),
    ],
)
def test_growth_is_a_slope(after_each: list[int], found: bool) -> None:
    case = JudgeInput(arm="off", blocks=(), expect=Expect(qemu_growth_max=MIB))
    memory = QemuMemory(tuple(one * MIB for one in after_each))
    rules = [finding.rule for finding in judge(case, memory).findings]
    assert rules == (["qemu-grows"] if found else [])
    said = too_few_migrations(case, Context(Analyses(case), (memory,)))
    assert (said is not None) == (len(after_each) < 6)


def test_nothing_is_said_where_nothing_is_expected() -> None:
    case = JudgeInput(arm="off", blocks=())
    memory = QemuMemory((MIB, 90 * MIB, 180 * MIB, 270 * MIB, 360 * MIB, 450 * MIB, 540 * MIB))
    assert judge(case, memory).findings == ()
    assert too_few_migrations(case, Context(Analyses(case), (memory,))) is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([30, 33, 33, 33, 33, 33, 33], False),
        ([30, 33, 33, 34, 35, 36, 37], True),
        # Once, or at one look only.
        ([30, 33, 33, 33, 34, 34, 34], False),
        ([30, 33, 33, 33, 33, 33, 37], False),
        ([30, 33, 37, 33, 33, 33, 33], False),
        ([33, 34, 35], False),
    ],
)
def test_files_that_nobody_closes(files: list[int], found: bool) -> None:
    case = JudgeInput(arm="off", blocks=(), expect=Expect(qemu_files_growth_max=0))
    memory = QemuMemory((MIB,) * len(files), tuple(files))
    rules = [finding.rule for finding in judge(case, memory).findings]
    assert rules == (["qemu-files-left"] if found else [])
    said = too_few_migrations(case, Context(Analyses(case), (memory,)))
    assert (said is not None) == (len(files) < 6)


def test_the_open_files_of_the_last_qemu(tmp_path: Path) -> None:
    (tmp_path / "7" / "fd").mkdir(parents=True)
    for number in "035":
        (tmp_path / "7" / "fd" / number).touch()
    assert own_files([attached(5), attached(7)], proc=tmp_path) == 3
    assert own_files([attached(7), attached(5)], proc=tmp_path) is None
