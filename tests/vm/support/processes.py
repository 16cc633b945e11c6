# SPDX-License-Identifier: GPL-2.0-or-later
"""Other processes, looked at while they come and go: one that has ended, or is another's, has no words."""

from __future__ import annotations

import contextlib

import psutil


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; empty if it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def name_of(process: psutil.Process) -> str:
    """Its program's name; empty if it has ended."""
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def parent_of(process: psutil.Process) -> int:
    """Its parent's number; 0 if it has ended."""
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL to each; there must be one, or nothing is tested."""
    assert processes, "nothing to kill"
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
