# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds the disks' images for writing: read from the kernel, and held against who runs the guest."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.evidence.outcomes import locks_of
from harness.hosts.image_locks import held_for_writing, write_locks
from harness.verdict.locks import LockLook, lock_findings
from harness.verdict.outcome import MigrationOutcome, QemuAccount

DISK = {"fe:00:7": "/run/disk.raw"}
MOVED = MigrationOutcome(
    QemuAccount("source", ("completed",), ((0.0, 1.0),)),
    QemuAccount("destination", ("completed",), ((2.0, None),)),
)
STAYED = MigrationOutcome(
    QemuAccount("source", ("cancelled",), ((0.0, None),)), QemuAccount("destination"), moved=False
)


def texts(outcome: MigrationOutcome, *looks: LockLook) -> list[str]:
    return [finding.text for finding in lock_findings(looks, outcome)]


def test_a_clean_migration() -> None:
    looks = (
        LockLook("begun", DISK),
        LockLook("completed", {}, {}),
        LockLook("resumed", None, DISK),
    )
    assert texts(MOVED, *looks) == []
    assert texts(STAYED, LockLook("begun", DISK), LockLook("given-up", DISK, {})) == []


def test_a_guest_that_runs_before_the_source_is_done() -> None:
    """In postcopy: then the destination has its disks, and the source has them no more."""
    let_go = replace(MOVED, let_go=True)
    assert texts(let_go, LockLook("begun", DISK), LockLook("completed", {}, DISK)) == []
    (text,) = texts(let_go, LockLook("begun", DISK), LockLook("completed", DISK, DISK))
    assert "both QEMUs hold" in text


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (
            LockLook("completed", DISK, {}),
            "has completed, and still holds the lock for writing on /run/disk.raw",
        ),
        (LockLook("completed", {}, DISK), "before it runs the guest"),
        (LockLook("resumed", DISK, DISK), "both QEMUs hold"),
        (LockLook("resumed", {}, {}), "the destination's QEMU runs the guest without the lock"),
    ],
)
def test_a_guest_that_moved(look: LockLook, words: str) -> None:
    (text,) = texts(MOVED, LockLook("begun", DISK), look)
    assert words in text


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (LockLook("given-up", {}, {}), "the source's QEMU runs the guest without the lock"),
        (LockLook("given-up", DISK, DISK), "both QEMUs hold"),
    ],
)
def test_a_guest_that_stayed(look: LockLook, words: str) -> None:
    (text,) = texts(STAYED, LockLook("begun", DISK), look)
    assert words in text


def test_what_nobody_could_look_at_is_no_finding() -> None:
    assert texts(MOVED, LockLook("begun", DISK), LockLook("resumed")) == []
    assert texts(MOVED, LockLook("begun", {}), LockLook("completed", DISK, DISK)) == []
    # A guest that was left stopped needs none.
    stopped = replace(STAYED, source=QemuAccount("source", ("cancelled",), ((0.0, 1.0),)))
    assert texts(stopped, LockLook("begun", DISK), LockLook("given-up", {}, {})) == []


def test_the_lines_of_an_open_file() -> None:
    lines = (
        "pos:\t0\nflags:\t02100002\n"
        "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:2270716 100 101\n"
        "lock:\t2: OFDLCK ADVISORY  READ -1 fe:00:2270716 103 103\n"
        "lock:\t3: OFDLCK ADVISORY  READ -1 fe:00:2270717 100 100\n"
        "lock:\t4: POSIX  ADVISORY  WRITE 77 fe:00:2270718 0 EOF\n"
        "lock:\t5: OFDLCK ADVISORY  WRITE -1 fe:00:2270719 0 EOF\n"
    )
    assert list(write_locks(lines)) == ["fe:00:2270716"]


def test_the_kernel_s_own_words(tmp_path: Path) -> None:
    """The lock that QEMU takes, taken here."""
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(512))
    descriptor = os.open(path, os.O_RDWR)
    try:
        assert str(path) not in held_for_writing(os.getpid()).values()
        # struct flock: type, whence, start, length, pid.
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)
        fcntl.fcntl(descriptor, 37, lock)  # F_OFD_SETLK
        assert str(path) in held_for_writing(os.getpid()).values()
    finally:
        os.close(descriptor)
    assert str(path) not in held_for_writing(os.getpid()).values()


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert held_for_writing(2**22 - 1) == {}


def test_looks_from_events() -> None:
    events = EventStream()
    events.emit("image-locks", moment="begun", held={"source": DISK})
    since = len(events.history())
    events.emit("image-locks", moment="completed", held={"source": {}, "destination": DISK})
    assert locks_of(events.history(), since=since) == (LockLook("completed", {}, DISK),)


def test_a_copy_is_held_in_place_of_the_image_that_it_is_of() -> None:
    looks = [LockLook("begun", DISK), LockLook("resumed", None, {"fe:00:8": "/there/disk.raw"})]
    assert lock_findings(looks, MOVED, {"/run/disk.raw": "/there/disk.raw"}) == []
    assert len(lock_findings(looks, MOVED)) == 1
    assert len(lock_findings(looks, MOVED, {"/run/disk.raw": "/elsewhere"})) == 1
