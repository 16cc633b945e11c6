# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload ``journal``: guest and host agree on every step, and an image that is wrong is seen to be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.guestview.journal import Writers, replay, review
from harness.guestview.report import Aftermath, Report
from harness.memory import formula
from harness.memory.record import Block
from harness.scenario.workloads.disk import Journal
from harness.verdict.judge import BlockState, JudgeInput, judge
from tests.unit.test_workloads import compiled

SEED, DEPTH, BLOCKS = 7, 2, 16
SIZE = DEPTH * BLOCKS * formula.PAGE
STEPS = (150, 163)


def writers(**changes: Any) -> Writers:
    none = [0] * DEPTH
    return replace(Writers(list(STEPS), none, none, none, none, none), **changes)


def image(steps: tuple[int, ...] = STEPS) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """What the disk holds after so many steps of each writer; discards have done nothing."""
    words = np.zeros((DEPTH * BLOCKS, formula.WORDS_PER_PAGE), np.uint64)
    for writer, count in enumerate(steps):
        done = replay(SEED, writer, count, BLOCKS)
        for at in range(BLOCKS):
            if done.written[at] > done.zeroed[at]:
                number = at * DEPTH + writer
                words[number] = formula.page_words(SEED, number, int(done.written[at]))
    return words


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., list[str]]:
    def of(words: np.ndarray[Any, Any], **changes: Any) -> list[str]:
        (tmp_path / "disk").write_bytes(words.tobytes())
        return [wrong.text for wrong in review(tmp_path / "disk", SEED, SIZE, 10, writers(**changes)).wrong]

    return of


def written_block() -> tuple[int, int]:
    """A block that is not zero, and the step that wrote it."""
    done = replay(SEED, 0, STEPS[0], BLOCKS)
    at = int(np.flatnonzero((done.written > done.zeroed) & (done.written > done.discarded))[0])
    return at * DEPTH, int(done.written[at])


def test_a_disk_as_it_must_be(texts: Callable[..., list[str]]) -> None:
    assert texts(image()) == []


def test_a_write_that_is_lost(texts: Callable[..., list[str]]) -> None:
    words = image()
    block, step = written_block()
    words[block] = 0
    assert texts(words) == [f"block {block} is zero; step {step} was acknowledged"]


def test_an_older_write_that_is_replayed_over_a_newer_one(texts: Callable[..., list[str]]) -> None:
    words = image()
    block, step = written_block()
    words[block] = formula.page_words(SEED, block, step - 1)
    assert texts(words) == [f"block {block} holds step {step - 1}; step {step} was acknowledged"]


def test_half_a_write(texts: Callable[..., list[str]]) -> None:
    words = image()
    block, step = written_block()
    words[block, 64:] = formula.page_words(SEED, block, 1)[64:]
    assert texts(words) == [
        f"block {block} is half: step {step} up to byte 512, something else from there; "
        f"step {step} was acknowledged"
    ]


def test_a_write_that_went_to_another_block(texts: Callable[..., list[str]]) -> None:
    words = image()
    block, step = written_block()
    words[block] = formula.page_words(SEED, block + DEPTH, step)
    assert texts(words) == [f"block {block} holds what no step has written; step {step} was acknowledged"]


def test_what_was_made_zero_must_be(texts: Callable[..., list[str]]) -> None:
    done = replay(SEED, 1, STEPS[1], BLOCKS)
    at = int(np.flatnonzero((done.zeroed > done.written) & (done.written > 0))[0])
    words, block = image(), at * DEPTH + 1
    words[block] = formula.page_words(SEED, block, int(done.written[at]))
    step = max(int(done.zeroed[at]), int(done.discarded[at]))
    assert texts(words) == [f"block {block} holds step {done.written[at]}; step {step} was acknowledged"]


def test_what_was_discarded_may_be_zero_or_not(texts: Callable[..., list[str]]) -> None:
    def discarded(steps: int) -> np.ndarray[Any, Any]:
        done = replay(SEED, 0, steps, BLOCKS)
        return np.flatnonzero((done.discarded > done.written) & (done.written > done.zeroed))

    steps = next(n for n in range(50, 150) if discarded(n).size)
    at, at_work = int(discarded(steps)[0]), [steps, STEPS[1]]
    words = image((steps, STEPS[1]))
    assert words[at * DEPTH].any()
    assert texts(words, steps=at_work) == []
    words[at * DEPTH] = 0
    assert texts(words, steps=at_work) == []


def test_what_is_on_its_way_may_be_there_or_not(texts: Callable[..., list[str]]) -> None:
    # The first step that writes to a block of which something else is known.
    steps = next(n for n in range(20, 60) if (image((n, STEPS[1])) != image((n + 1, STEPS[1]))).any())
    before, after = image((steps, STEPS[1])), image((steps + 1, STEPS[1]))
    at_work = [steps, STEPS[1]]
    assert texts(before, steps=at_work, busy=[1, 0]) == texts(after, steps=at_work, busy=[1, 0]) == []
    assert len(texts(after, steps=at_work)) == 1


def test_the_guest_does_what_the_host_replays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    program = compiled(tmp_path, DISK=str(disk))
    mine = Journal.model_validate({"disk": "1MiB", "depth": 4, "keep": "64KiB"})
    with subprocess.Popen(
        [program, "load", *mine.load_words(SEED, 0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(line: str) -> dict[str, Any]:
            print(line, file=process.stdin, flush=True)
            return said()

        def said() -> dict[str, Any]:
            assert process.stdout is not None
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

        assert said()["bad"] == 0
        before = Report(ask("report"), 0, 0)
        while sum(ask("report")["steps"]) < 2000:
            pass
        assert ask("stop")["steps"] >= 2000
        assert ask("verify")["pages"] == 16
        after = Report(ask("report"), 1, 1)
        process.stdin.close()
    [found] = mine.facts(Aftermath(SEED, before, after, (), "tcg", disk))
    assert found.acknowledged == sum(after.numbers("steps", 4)) >= 2000  # type: ignore[attr-defined]
    assert (found.wrong, found.read_bad, found.unanswered, found.failed) == ((), 0, 0, 0)  # type: ignore[attr-defined]
    assert all(sum(after.numbers(kind, 4)) for kind in ("writes", "reads", "flushes", "discards", "zeroed"))
    words = np.fromfile(disk, "<u8").reshape(-1, formula.WORDS_PER_PAGE)
    words[np.flatnonzero(words.any(axis=1))[0]] = 0
    disk.write_bytes(words.tobytes())
    [found] = mine.facts(Aftermath(SEED, before, after, (), "tcg", disk))
    assert len(found.wrong) == 1  # type: ignore[attr-defined]


def test_a_report_that_makes_no_sense() -> None:
    with pytest.raises(MachineryError, match="no 8 numbers 'steps'"):
        Writers.read(Report({"steps": [1]}, 0, 0), 8)


def test_the_verdict_tells_all_of_it(tmp_path: Path) -> None:
    none = np.zeros(4, dtype=np.bool_)
    case = JudgeInput("off", (BlockState(Block("pc.ram", 4, ()), np.array([], np.int64), none, none),))
    words = image()
    (tmp_path / "disk").write_bytes(words.tobytes())
    fine = review(tmp_path / "disk", SEED, SIZE, 10, writers())
    assert judge(case, fine).verdict == "pass"
    words[:] = 1
    (tmp_path / "disk").write_bytes(words.tobytes())
    wrong = review(
        tmp_path / "disk", SEED, SIZE, 10, writers(bad=[0, 3], first_bad=[0, 5], stuck=[1, 0], failed=[5, 0])
    )
    findings = judge(case, wrong).findings
    assert [(found.rule, found.count) for found in findings] == [
        ("disk-journal", DEPTH * BLOCKS),
        ("disk-journal", 3),
        ("disk-unanswered", 1),
        ("disk-error", 1),
    ]
    assert "(and 28 more blocks)" in findings[0].text
    assert "the first is block 5" in findings[1].text
