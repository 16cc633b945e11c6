# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's formula against the guest's own program, compiled here."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.memory import formula
from harness.scenario.workloads.base import WORKLOADS
from tests.unit.guest_programs import made

PAGE = formula.PAGE

Program = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's workload program, for this machine."""
    return made(tmp_path_factory.mktemp("programs"), "workload", sanitized=True) / "workload"


@pytest.fixture
def workload(program: Path) -> Program:
    """Run it to its end, with lines for its standard input."""

    def run(*args: object, say: str = "") -> list[dict[str, Any]]:
        done = subprocess.run(
            [program, *map(str, args)], input=say, capture_output=True, text=True, timeout=60, check=False
        )
        lines = done.stdout.splitlines()
        return [{"error": line} if line.startswith("error") else json.loads(line) for line in lines]

    return run


@contextlib.contextmanager
def running(program: Path, *words: object) -> Iterator[Callable[[str], Mapping[str, Any]]]:
    """The program, loaded; yields a function that says a line to it and returns the answer."""
    command = [str(program), "load", *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout
        stdout.readline()

        def say(line: str) -> Mapping[str, Any]:
            stdin.write(f"{line}\n")
            stdin.flush()
            answer: Mapping[str, Any] = json.loads(stdout.readline())
            return answer

        yield say


@pytest.mark.parametrize(
    ("seed", "page", "generation"),
    [(0, 0, 0), (7, 3, 1), (2**64 - 1, 2**40, 2**31), (0x1234_5678_9ABC_DEF0, 999_999, 4_294_967_294)],
)
def test_words_and_sums_agree(workload: Program, seed: int, page: int, generation: int) -> None:
    (vector,) = workload("vectors", seed, page, generation)
    words = formula.page_words(seed, page, generation)
    one = np.array([page], np.uint64), np.array([generation], np.uint64)
    assert len(words) == 512
    assert f"{int(words[0]):016x}" == vector["first"]
    assert f"{int(words[-1]):016x}" == vector["last"]
    assert f"{int(formula.page_sums(seed, *one)[0]):016x}" == vector["sum"]
    assert formula.checksum(seed, *one) == vector["weighted"]


def test_known_vector() -> None:
    """Fixed for good: a formula that changes on both sides at once would pass all other tests."""
    words = formula.page_words(7, 3, 1)
    assert (f"{int(words[0]):016x}", f"{int(words[511]):016x}") == ("8384729860180e15", "f9e306c6f37c7518")


def test_churn_steps_agree(workload: Program) -> None:
    (vector,) = workload("vectors", 77, 0, 0)
    table = np.zeros(1000, np.int64)
    for k, (write, start, end) in enumerate(vector["steps"], start=1):
        table[start:end] = k if write else -1
    assert (formula.churn_generations(77, 1000, len(vector["steps"])) == table).all()
    assert (table == -1).any() and (table > 0).any()


@pytest.mark.parametrize("kind", ["idle", "freed", "fragmented"])
@pytest.mark.parametrize("keep", [0, 5 * PAGE])
def test_host_knows_what_a_workload_owns(workload: Program, kind: str, keep: int) -> None:
    loaded, verified = workload("load", kind, 42, 33 * PAGE, f"keep={keep}", say="verify\n")
    # Not validated: no scenario may say 0.
    expected = WORKLOADS[kind].model_construct(keep=keep).expected(42, 33 * PAGE)
    for answer in loaded, verified:
        assert (answer["pages"], answer["bad"], answer["checksum"]) == (expected.pages, 0, expected.checksum)
    assert loaded["freed"] == {"idle": 0, "freed": 33, "fragmented": 16}[kind]


def test_default_of_keep_agrees(workload: Program) -> None:
    # The others are programs of their own: tests/unit/test_workloads.py
    for kind in ("idle", "freed"):
        (loaded,) = workload("load", kind, 1, 0)
        assert loaded["pages"] == WORKLOADS[kind]().expected(1, 0).pages


@pytest.mark.parametrize("kind", ["churn", "rewrite"])
def test_host_replays_a_churn(program: Path, kind: str) -> None:
    with running(program, kind, 9, 700 * PAGE, "rate=100000") as say:
        while (stopped := say("verify"))["steps"] < 300:
            assert stopped["bad"] == 0
        stopped = say("stop")
        verified = say("verify")
    expected = WORKLOADS[kind]().expected(9, 700 * PAGE, stopped["steps"])
    assert (verified["pages"], verified["checksum"]) == (expected.pages, expected.checksum)
    assert verified["live_checked"] > 0 and verified["live_bad"] == 0 == verified["bad"]
    assert (verified["pages"] == 700) == (kind == "rewrite")


@pytest.mark.parametrize("rate", [100000, 0])
def test_host_replays_patterns(program: Path, rate: int) -> None:
    """Every way of changing a page, some of them many times over; pages that reach into others."""
    with running(program, "patterns", 9, 203 * PAGE, f"rate={rate}") as say:
        while (stopped := say("verify"))["steps"] < 300:
            assert stopped["bad"] == 0
        stopped = say("stop")
        verified = say("verify")
    expected = WORKLOADS["patterns"]().expected(9, 203 * PAGE, stopped["steps"])
    assert (verified["pages"], verified["checksum"]) == (expected.pages, expected.checksum)
    assert verified["live_checked"] > 0 and verified["live_bad"] == 0 == verified["bad"]


def test_too_much_is_refused_with_numbers(workload: Program) -> None:
    (answer,) = workload("load", "fragmented", 1, 1 << 45)
    assert str(1 << 45) in answer["error"] and "available" in answer["error"]


@pytest.mark.parametrize(
    "words", [("what", 1, 1), ("freed", "x", 1), ("freed", 1, -1), ("idle", 1, 1, "speed=9"), ("churn", 1, 0)]
)
def test_nonsense_is_refused(workload: Program, words: tuple[object, ...]) -> None:
    (answer,) = workload("load", *words)
    assert answer["error"]
