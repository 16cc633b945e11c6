# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folders: listed, found by name, read, and pruned."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.report.folder import RunFolder
from harness.report.runs import find_run, known_runs, log_of, prune_runs, run_name

RESULT = {"verdict": "pass", "scenario": "idle", "arm": "off", "reason": "all right"}


def run(parent: Path, name: str, days: float, result: object = RESULT) -> Path:
    folder = RunFolder.create(parent / name, "idle", "off")
    folder.write_text("console.log", "said")
    if result is not None:
        folder.write_whole("result.json", result if isinstance(result, str) else json.dumps(result))
        folder.finish()
    when = time.time() - days * 86400
    for path in (*folder.path.iterdir(), folder.path):
        os.utime(path, (when, when))
    return folder.path


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    parent = tmp_path / "runs"
    run(parent, "20260103-000000-idle-off", 1)
    run(parent, "20260101-000000-idle-off", 3)
    run(parent, "20260102-000000-churn-info", 2, None)
    run(parent, "20260102-000000-freed-info", 2.5, "{")
    (parent / "something").mkdir()
    (parent / "file").touch()
    return parent


def test_they_are_listed_by_their_end(parent: Path) -> None:
    assert [(one.path.name, one.verdict) for one in known_runs(parent)] == [
        ("20260101-000000-idle-off", "pass"),
        ("20260102-000000-freed-info", "unreadable"),
        ("20260102-000000-churn-info", "none"),
        ("20260103-000000-idle-off", "pass"),
    ]
    assert "has not ended" in known_runs(parent)[2].reason
    with pytest.raises(InputError, match="there is no folder"):
        known_runs(parent / "none")
    with pytest.raises(InputError, match="cannot look into"):
        known_runs(parent / "file")


def test_a_run_is_found_by_what_people_write(parent: Path) -> None:
    newest = parent / "20260103-000000-idle-off"
    for name in ("last", "20260103-000000-idle-off", "20260103", str(newest)):
        assert find_run(name, parent) == newest
    for name, words in (
        ("20260102", "may be any of 2 runs"),
        ("nosuch", "no run 'nosuch'"),
        ("", "no run ''"),
        ("something", "no run"),
        ("..", "no run"),
    ):
        with pytest.raises(InputError, match=words):
            find_run(name, parent)
    with pytest.raises(InputError, match="no run"):
        find_run("x", parent / "none")
    (parent / "something" / "else").mkdir()
    with pytest.raises(InputError, match="there is no run in"):
        find_run("last", parent / "something")


def test_runs_of_a_suite_are_seen_by_both_names(parent: Path) -> None:
    place = run(parent, "20260105-000000-suite-smoke/001-idle", 0.5)
    run(parent, "20260105-000000-suite-smoke/002-churn", 0.4)
    assert [run_name(one.path, parent) for one in known_runs(parent)][-2:] == [
        "20260105-000000-suite-smoke/001-idle",
        "20260105-000000-suite-smoke/002-churn",
    ]
    for name in ("20260105-000000-suite-smoke/001-idle", "20260105-000000-suite-smoke/001"):
        assert find_run(name, parent) == place
    with pytest.raises(InputError, match="any of 2 runs: 20260105-000000-suite-smoke/001-idle"):
        find_run("20260105", parent)


def test_only_files_of_the_run_are_read(parent: Path) -> None:
    place = find_run("last", parent)
    assert log_of(place, "console.log").read_text() == "said\n"
    (place / "way").symlink_to("/etc/passwd")
    for name in ("../file", "/etc/passwd", "way", "", "hosts", "."):
        with pytest.raises(InputError, match="has no file"):
            log_of(place, name)


@pytest.mark.parametrize(
    ("days", "keep", "verdicts", "gone"),
    [
        (0, 0, ("pass",), ["20260101-000000-idle-off", "20260103-000000-idle-off"]),
        (0, 1, ("pass",), ["20260101-000000-idle-off"]),
        (2.2, 0, ("pass", "none", "unreadable"), ["20260101-000000-idle-off", "20260102-000000-freed-info"]),
        (0, 9, ("pass",), []),
        (0, 0, ("none",), ["20260102-000000-churn-info"]),
    ],
)
def test_old_ones_go(
    parent: Path, days: float, keep: int, verdicts: tuple[str, ...], gone: list[str]
) -> None:
    runs = known_runs(parent)
    would = prune_runs(runs, days=days, keep=keep, verdicts=verdicts, dry_run=True)
    assert [one.path.name for one in would] == gone
    assert known_runs(parent) == runs
    list(prune_runs(runs, days=days, keep=keep, verdicts=verdicts, dry_run=False))
    assert sorted({one.path.name for one in runs} - set(gone)) == sorted(
        one.path.name for one in known_runs(parent)
    )


def test_one_that_may_be_going_on_stays(parent: Path) -> None:
    busy = run(parent, "20260104-000000-idle-off", 0, None)
    list(prune_runs(known_runs(parent), days=0, keep=0, verdicts=("none",), dry_run=False))
    assert busy.exists()
