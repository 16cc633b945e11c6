# SPDX-License-Identifier: GPL-2.0-or-later
"""How a QEMU is told of the file that it writes or reads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from harness.migration.acting import may_change_machine
from harness.migration.qmp import Monitor
from harness.run.saved.qmp_stream import told_of

#: Linux hides what it sets by itself (O_LARGEFILE).
_OF_ACCESS = os.O_ACCMODE | os.O_DIRECT


class FakeMonitor:
    """What is handed to a QEMU: the command, its file, and how that is open."""

    def __init__(self) -> None:
        self.handed: list[tuple[str, Mapping[str, Any], int, int]] = []

    def hand_file(self, descriptor: int, command: str, arguments: Mapping[str, Any]) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & _OF_ACCESS
        self.handed.append((command, arguments, os.fstat(descriptor).st_ino, flags))


def told(path: Path, by: str, *, writes: bool, direct: bool = False) -> tuple[str, FakeMonitor]:
    monitor = FakeMonitor()
    before = len(os.listdir("/proc/self/fd"))
    with told_of(cast(Monitor, monitor), path, by, writes=writes, direct=direct) as uri:
        pass
    assert len(os.listdir("/proc/self/fd")) == before
    return uri, monitor


def test_by_its_path_nothing_is_opened(tmp_path: Path) -> None:
    uri, monitor = told(tmp_path / "state", "path", writes=True)
    assert uri == f"file:{tmp_path}/state"
    assert monitor.handed == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("writes", "flags"), [(True, os.O_WRONLY), (False, os.O_RDONLY)])
def test_as_an_open_file(tmp_path: Path, writes: bool, flags: int) -> None:
    file = tmp_path / "state"
    file.write_bytes(b"of before")
    uri, monitor = told(file, "fd", writes=writes)
    [(command, arguments, inode, opened)] = monitor.handed
    assert (command, inode, opened) == ("getfd", file.stat().st_ino, flags)
    assert uri == f"fd:{arguments['fdname']}"
    assert file.read_bytes() == (b"" if writes else b"of before")


def test_in_a_set_with_one_more_past_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "state"
    uri, monitor = told(file, "fdset", writes=True, direct=True)
    plain, direct = monitor.handed
    assert (plain[0], direct[0]) == ("add-fd", "add-fd")
    assert plain[2] == direct[2] == file.stat().st_ino
    assert (plain[3], direct[3]) == (os.O_WRONLY, os.O_WRONLY | os.O_DIRECT)
    assert uri == f"file:/dev/fdset/{plain[1]['fdset-id']}"


def test_a_descriptor_changes_no_machine() -> None:
    assert not may_change_machine("getfd", {"fdname": "x"})
    assert not may_change_machine("add-fd", {"fdset-id": 1})
