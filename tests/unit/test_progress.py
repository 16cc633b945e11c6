# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that stands still, and the stacks of a process that hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.hosts import stacks
from harness.migration.progress import ProgressWatch, Sample


def answer(transferred: int, status: str = "active", syncs: int = 1) -> dict[str, object]:
    return {"status": status, "ram": {"transferred": transferred, "dirty-sync-count": syncs, "remaining": 5}}


def test_what_moves_does_not_stand_still() -> None:
    watch = ProgressWatch(10, now=0)
    for now in range(0, 100, 9):
        watch.note(Sample.of(answer(now)), now)
        assert watch.stood_still(now) is None


def test_a_sync_is_progress_without_a_byte() -> None:
    watch = ProgressWatch(10, now=0)
    watch.note(Sample.of(answer(7, syncs=1)), 0)
    watch.note(Sample.of(answer(7, syncs=2)), 9)
    assert watch.stood_still(18) is None


def test_the_same_answer_again_is_none() -> None:
    watch = ProgressWatch(10, now=0)
    for now in (0, 5, 10):
        watch.note(Sample.of(answer(7)), now)
    words = watch.stood_still(10)
    assert words is not None
    assert "'active'" in words
    assert "7 bytes" in words


def test_silence_is_told_apart() -> None:
    watch = ProgressWatch(10, now=0)
    assert watch.stood_still(9.9) is None
    assert "not answered" in str(watch.stood_still(11))
    watch.moved(11)
    assert watch.stood_still(20) is None


def test_an_answer_that_says_nothing_is_a_sample() -> None:
    assert Sample.of(None) == Sample()
    assert Sample.of({"status": "setup"}) == Sample("setup")


def test_until_qemu_has_begun_it_speaks_of_the_migration_before() -> None:
    watch = ProgressWatch(10, now=0)
    for now in (0, 5):
        jobs = [{"type": "mirror", "offset": 4096 * now}, {"type": "mirror"}, None]
        watch.note(Sample.of(answer(7, "failed"), jobs, begun=False), now)
    assert watch.stood_still(14) is None
    words = watch.stood_still(15)
    assert words is not None
    assert words.startswith("for 10 s QEMU has not begun to migrate, and of its disks")
    assert "20480 bytes" in words
    assert Sample.of(answer(7, "failed"), begun=False) == Sample()
    # In pre-switchover the last blocks follow, and nothing else changes.
    assert Sample.of(answer(7), [{"offset": 1}]) != Sample.of(answer(7), [{"offset": 2}])


def test_the_kernel_tells_of_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks.shutil, "which", lambda _: None)
    program = [sys.executable, "-c", "print(1, flush=True); input()"]
    sleeper = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # Until it speaks it may not be Python yet, but a fork of ours.
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline()
        said = stacks.stacks_of(sleeper.pid)
    finally:
        sleeper.communicate()
    assert "neither gdb nor eu-stack" in said
    assert f"thread {sleeper.pid} python" in said
    assert "State:" in said


def test_of_a_process_that_is_gone(tmp_path: Path) -> None:
    del tmp_path
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert "thread" not in stacks.kernel_view(ended.pid)
