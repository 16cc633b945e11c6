# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts that are reached by ssh, and by nothing else; see :mod:`tests.vm.programs.remote`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.report.result import Result
from tests.vm.conftest import LONGEST, QEMU


def scene(what: str, folder: Path, repository: Path) -> Any:
    """What the program printed."""
    command = [sys.executable, "-m", "tests.vm.programs.remote", what, str(folder), *([QEMU] if QEMU else [])]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_remote_memory_is_right_and_nothing_is_left(folder: Path, repository: Path) -> None:
    seen = scene("run", folder, repository)
    assert seen["status"] == 0, seen["said"]
    result = Result.model_validate(seen["result"])
    assert result.verdict == "pass"
    assert result.pages.skipped_percent >= 50
    assert not result.not_compared
    assert result.guest.checksum_matches
    # Both witnesses: the walk goes over the network too.
    assert result.witnesses is not None
    assert result.bytes.floor_by == "walk"
    remote = result.remote
    assert remote is not None
    assert [host.node for host in remote.hosts.values()] == ["source", "destination"]
    assert 0 < remote.oracle_percent <= 1
    assert seen["after"] == seen["before"]
    # What is looked at is not nothing: each host has a daemon.
    for host in seen["before"].values():
        assert "libvirtd" in host["processes"] or "virtqemud" in host["processes"]
