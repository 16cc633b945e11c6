# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts that are reached by ssh, and by nothing else; see :mod:`tests.vm.programs.remote`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.report.result import Result
from tests.vm.conftest import LONGEST

QEMU = os.environ.get("FREEPAGE_TEST_QEMU")


def scene(what: str, folder: Path, repository: Path) -> Any:
    """What the program printed."""
    command = [sys.executable, "-m", "tests.vm.programs.remote", what, str(folder), *([QEMU] if QEMU else [])]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=3 * LONGEST, check=False
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
    # The doctor was asked about both.
    said = {item["name"]: item for item in seen["doctor"]["findings"]}
    for name in ("source", "destination"):
        assert said[name]["level"] == "ok", said[name]
        assert re.search(
            rf": {name}, kernel .* answers in [0-9.]+ ms, sends [0-9.]+ MiB/s", said[name]["text"]
        )
    # What is looked at is not nothing: each host has a daemon.
    for host in seen["before"].values():
        assert "libvirtd" in host["processes"] or "virtqemud" in host["processes"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_nested_machines_that_are_reached_by_ssh(folder: Path, repository: Path) -> None:
    """Each with its own kernel, its own KVM, and libvirt as the distribution delivers it."""
    command = [sys.executable, "-m", "tests.vm.programs.nested_hosts", str(folder)]
    command += ["--qemu", QEMU] if QEMU else []
    done = subprocess.run(
        command, cwd=repository, stdout=subprocess.PIPE, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0
    seen = json.loads(done.stdout)
    assert seen["status"] == 0
    result = Result.model_validate(seen["result"])
    assert result.verdict == "pass"
    assert result.accelerator == seen["chain"]
    assert result.pages.skipped_percent >= 50
    assert all(name.startswith("kvmclock-") for name in result.pages.explained), result.pages
    assert result.remote is not None
    assert [host.node for host in result.remote.hosts.values()] == ["source", "destination"]
    assert 0 < result.remote.oracle_percent <= 1
    assert "libvirtd" in seen["before"]["source"]
    assert seen["after"] == seen["before"]


def test_a_remote_page_that_is_wrong_is_found_and_named(folder: Path, repository: Path) -> None:
    """Over digests alone; and what both sides held is fetched."""
    seen = scene("corrupt", folder, repository)
    assert seen["verdict"] == "fail"
    assert [page for page, _ in seen["wrong"]] == seen["changed"]
    assert {rule for _, rule in seen["wrong"]} == {
        "differs-though-sent",
        "skipped-but-not-zero-on-destination",
    }
    assert len(seen["kept"]) == 4


def test_a_lost_connection_leaves_remote_hosts_as_they_were(folder: Path, repository: Path) -> None:
    """The ssh of one host, the harness, and our program over there are killed in mid-run; and Ctrl-C."""
    seen = scene("lost", folder, repository)
    statuses = {"ssh": 3, "harness": -9, "deputy": 3, "interrupt": 130}
    assert set(seen) == set(statuses)
    for name, one in seen.items():
        assert one["status"] == statuses[name], one["said"]
        assert "Traceback" not in one["said"]
        if name in ("ssh", "deputy"):
            assert "is lost" in one["said"]
        # There was something to be taken away on both.
        for side in ("source", "destination"):
            assert one["meanwhile"][side]["/var/tmp"] != one["before"][side]["/var/tmp"]
        assert one["after"] == one["before"], name


def test_remote_hosts_that_will_not_do(folder: Path, repository: Path) -> None:
    """What is missing is said in words, and nothing was started or written by then."""
    seen = scene("refusals", folder, repository)
    wanted = {
        "unknown-key": (2, "the host key of .* is not known"),
        "changed-key": (2, "shows another host key"),
        "authentication": (2, "authentication failed"),
        "no-forwarding": (2, "does not forward unix sockets"),
        "no-forwarding-here": (2, "does not forward unix sockets"),
        "no-python": (2, "has no Python that is called python3"),
        "nobody-there": (3, "cannot be reached by ssh"),
        "no-libvirt": (2, "no libvirt daemon answers"),
        "same-host": (2, "the same host for libvirt"),
        "memory": (2, "do not fit on the source"),
    }
    assert set(seen["cases"]) == set(wanted)
    for name, (status, words) in wanted.items():
        one = seen["cases"][name]
        assert one["status"] == status, (name, one["said"])
        assert re.search(words, one["said"]), (name, one["said"])
        assert "hint: " in one["said"], name
        assert "Traceback" not in one["said"], name
        assert not one["folder"], name
    assert seen["after"] == seen["before"]
