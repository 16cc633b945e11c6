# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a core file is: by the kernel's pattern, moved into the run folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.evidence.outcomes import account_of, with_core
from harness.hosts.core_files import core_limit, core_words, expand
from harness.verdict.outcome import MigrationOutcome, QemuAccount, outcome_findings


@pytest.mark.parametrize(
    ("pattern", "uses_pid", "name"),
    [
        ("core", False, "core"),
        ("core", True, "core.7"),
        ("/var/cores/%e.%p.%t", True, "/var/cores/*.7.*"),
        ("100%%.%p", False, "100%.7"),
    ],
)
def test_the_pattern(pattern: str, uses_pid: bool, name: str) -> None:
    assert expand(pattern, 7, uses_pid=uses_pid) == name


def test_a_core_is_moved_into_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "core.qemu.7").write_text("a core")
    keep = tmp_path / "source.core"
    pattern = f"{tmp_path}/core.%e.%p"
    words = core_words(7, dumped=True, limit="unlimited", keep=keep, pattern=pattern, uses_pid=False)
    assert words == "its core file is source.core in the run folder"
    assert keep.read_text() == "a core"
    again = core_words(7, dumped=True, limit="unlimited", keep=keep, pattern=pattern, uses_pid=False)
    assert "not to be seen from here" in again


def test_why_there_is_none(tmp_path: Path) -> None:
    keep = tmp_path / "none"
    assert "limit for it is 0" in core_words(7, dumped=False, limit="0", keep=keep, pattern="core")
    other = core_words(7, dumped=False, limit="unlimited", keep=keep, pattern="core")
    assert "the kernel wrote none (core_pattern 'core', limit unlimited)" in other
    piped = core_words(7, dumped=True, limit="unlimited", keep=keep, pattern="|/usr/lib/systemd/coredump %P")
    assert piped == "its core went to the program /usr/lib/systemd/coredump"


def test_the_limit_of_a_process() -> None:
    assert core_limit(os.getpid()) is not None
    assert core_limit(2**22 - 1) is None


def test_a_crash_says_what_became_of_its_core(tmp_path: Path) -> None:
    events = EventStream()
    events.emit("qemu-attached", source="source.qmp", pid=11, running=True, at=1.0, core_limit="0")
    events.emit("process-ended", pid=11, returncode=-6, core=False, at=2.0)
    history = events.history()
    account = with_core(account_of("source", history, since=0), history, since=0, keep=tmp_path / "core")
    outcome = MigrationOutcome(account, QemuAccount("destination"), moved=False)
    crashed = next(found for found in outcome_findings(outcome) if found.rule == "qemu-crashed")
    assert (
        crashed.text == "the source's QEMU ended by SIGABRT (no core file: the limit for it is 0 (ulimit -c))"
    )
