# SPDX-License-Identifier: GPL-2.0-or-later
"""A failed run made again, runs until one fails, and what would be started."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from harness.invoke import invoke

#: Words that differ between what libvirt says and what it starts: see docs/again.md.
_OWN = (
    "fd=",
    '"fd"',
    "charmonitor",
    "domain-",
    "/1-guest/",
    "/-1-guest/",
    "romfile",
    '"virtio-net-pci"',
    ".record",
)


@pytest.mark.parametrize("scenario", ["idle", pytest.param("disk-journal", marks=pytest.mark.slow)])
def test_what_is_printed_is_what_is_started(scenario: str, folder: Path) -> None:
    """Word by word, but for what only a start decides."""
    options = ("--memory", "512MiB", "--arm", "info")
    run = invoke(["run", scenario, *options, "--out", folder / "run"])
    assert run.exit_code == 0, str(run)
    said = invoke(["run", scenario, *options, "--print-command", "--json"])
    assert said.exit_code == 0, str(said)
    words = json.loads(said.stdout)["source"]["command"]
    started = shlex.split((folder / "run" / "source.command").read_text())
    uuids = {started[started.index("-uuid") + 1], words[words.index("-uuid") + 1]}

    def plain(line: list[str]) -> list[str]:
        # The run folder is named where a run has one.
        return [word for word in line if word not in uuids and not any(own in word for own in _OWN)]

    elsewhere = [
        (one, other)
        for one, other in zip(plain(started), plain(words), strict=True)
        if one != other and "disk.raw" not in one
    ]
    assert elsewhere == []


@pytest.mark.slow
def test_a_failed_run_fails_again_when_it_is_replayed(folder: Path) -> None:
    """With the same deliberate fault; and where the folder has been moved."""
    options = ("--memory", "512MiB", "--fault", "report-all", "--seed", "7")
    run = invoke(["run", "freed", *options, "--out", folder / "first"])
    assert run.exit_code == 1, str(run)
    moved = shutil.move(folder / "first", folder / "moved")
    again = invoke(["replay", moved, "--out", folder / "second"])
    assert again.exit_code == 1, str(again)
    first, second = (json.loads((folder / name / "result.json").read_text()) for name in ("moved", "second"))
    assert second["seed"] == first["seed"] == 7
    assert second["versions"]["source_qemu"] == first["versions"]["source_qemu"]
    assert "replay: the verdict" in again.stderr


@pytest.mark.slow
def test_it_runs_until_a_run_fails(folder: Path) -> None:
    options = ("--memory", "512MiB", "--fault", "report-all", "--json")
    done = invoke(["run", "freed", *options, "--until-failure", "--max", "5", "--out", folder / "runs"])
    assert done.exit_code == 1, str(done)
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "runs" / "until-failure.json").read_text())
    outcomes = [run["outcome"] for run in document["runs"]]
    assert outcomes[-1] == "fail"
    assert all((Path(run["folder"]) / "result.json").exists() for run in document["runs"])
