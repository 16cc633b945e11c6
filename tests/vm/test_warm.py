# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that go on from a file: as right as those that boot, and none the copy of another."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.invoke import invoke
from harness.report.result import Result
from harness.toolchain.cache import Cache
from harness.toolchain.warm_store import WARM_KIND

#: What each guest says of itself once it is ready.
SAYS = [
    {"run": ["cat", "/proc/sys/kernel/random/uuid"]},
    # When it booted, by its wall clock; and for how long it has run.
    {"run": ["sh", "-c", "grep btime /proc/stat; cat /proc/uptime"]},
    {"run": ["cat", "/proc/cmdline"]},
]


def _run(folder: Path, name: str, scenario: str, *options: str) -> Result:
    words = ["run", scenario, "--json", "--out", folder / name, "--seed", "11"]
    ended = invoke([*words, "--set", f"guest.commands.before={json.dumps(SAYS)}", *options])
    assert ended.exit_code in (0, 1), str(ended)
    return Result.from_json(ended.stdout)


def _kept_with(mark: str) -> list[Path]:
    """The kept guests with these words on their kernel's command line; others come and go meanwhile."""
    found = []
    for place in (Cache(None, EventStream()).root / "store" / WARM_KIND).iterdir():
        with contextlib.suppress(OSError):
            if not place.name.startswith(".") and mark in (place / "console.log").read_text(errors="replace"):
                found.append(place)
    return found


def _clock_is_right(result: Result, before: float) -> bool:
    booted, uptime = result.commands[1].output.split()[1:3]
    return before - 2 <= int(booted) + float(uptime) <= time.time() + 2


@pytest.mark.parametrize(
    ("scenario", "memory"),
    [
        ("idle", "192MiB"),
        *(
            pytest.param(name, memory, marks=pytest.mark.slow)
            for name, memory in (
                ("churn", "192MiB"), ("freed", "512MiB"), ("there-and-back", "512MiB"), ("clocks", "256MiB"),
                ("fragmented", "512MiB"), ("reset", "256MiB"), ("vcpus-plugged", "512MiB"),
                ("postcopy", "512MiB"),
            )
        ),
    ],
)  # fmt: skip
def test_the_verdict_does_not_depend_on_how_the_guest_came_to_be(
    folder: Path, scenario: str, memory: str
) -> None:
    """Booted, kept, gone on: the same is loaded and found right; clock and random numbers are a run's own.

    A command line of this test's own makes the guest one that nobody has kept yet.
    """
    mark = f"test={time.time_ns()}"
    options = ("--memory", memory, "--set", f"guest.cmdline={mark}", "--warm")
    began = time.time()
    cold = _run(folder, "cold", scenario, *options)
    kept = _run(folder, "kept", scenario, *options)
    again = time.time()
    warm = _run(folder, "warm", scenario, *options)
    assert [run.warm for run in (cold, kept, warm)] == [False, True, True]
    assert {run.verdict for run in (cold, kept, warm)} == {"pass"}
    # Only the one that kept it has booted it.
    assert (folder / "kept" / "kept-guest" / "console.log").stat().st_size > 10_000
    assert "Linux version" not in (folder / "warm" / "console.log").read_text(errors="replace")
    assert all(mark in run.commands[2].output for run in (cold, kept, warm))
    # Each holds as much memory of its own as a booted one: nothing was filled in by restoring.
    sent = [run.pages.total - run.pages.skipped for run in (cold, kept, warm)]
    assert max(sent) < 1.2 * min(sent)
    assert _clock_is_right(cold, began) and _clock_is_right(warm, again)
    assert len({run.commands[0].output for run in (cold, kept, warm)}) == 3
    (made,) = _kept_with(mark)
    shutil.rmtree(made)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["sync-drops-bit", "sync-assigns"])
def test_a_fault_is_caught_in_a_guest_that_goes_on(folder: Path, fault: str) -> None:
    """By the same rules as in one that boots."""
    from harness.faults.catalogue import catalogue

    found = catalogue().find(fault)
    runs = [
        _run(folder, f"run-{number}", found.scenario_file, "--fault", fault, "--warm") for number in range(3)
    ]
    assert runs[-1].warm
    for run in runs:
        assert run.verdict == "fail"
        assert {rule.rule for rule in run.findings} & {*found.rules}


@pytest.mark.slow
def test_a_guest_that_cannot_go_on_is_booted_and_the_run_says_why(folder: Path) -> None:
    """Nobody has to know which scenarios allow it."""
    ended = invoke(["run", "disk-journal", "--warm", "--json", "--out", folder / "run"])
    assert ended.exit_code == 0, str(ended)
    assert not Result.from_json(ended.stdout).warm
    assert "it has a disk" in ended.stderr


@pytest.mark.slow
def test_a_file_that_was_cut_is_noticed_and_made_anew(folder: Path) -> None:
    """A guest is never given half of its memory."""
    mark = f"test={time.time_ns()}"
    options = ("--memory", "192MiB", "--set", f"guest.cmdline={mark}", "--warm")
    for number in range(2):
        assert _run(folder, f"make-{number}", "idle", *options).verdict == "pass"
    (place,) = _kept_with(mark)
    with (place / "memory-0").open("r+b") as file:
        file.truncate(1 << 20)
    result = _run(folder, "after", "idle", *options)
    assert (result.warm, result.verdict) == (True, "pass")
    shutil.rmtree(place)
