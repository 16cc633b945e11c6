# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user names is read bounded, and only if it is a file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.reading import read_bounded, read_text


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5, "a thing") == b"12345"
    # Its size is told as 0.
    assert read_bounded(Path("/proc/self/stat"), 1 << 16, "a thing").startswith(b"%d " % os.getpid())


def test_what_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("wb") as holes:
        holes.truncate(1 << 40)
    with pytest.raises(InputError, match="not a thing: larger than 5B"):
        read_bounded(file, 5, "a thing")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "fifo", "is a FIFO, and not a thing"),
            (tmp_path, "is a folder, and not a thing"),
            (Path("/dev/zero"), "is a device, and not a thing"),
            (tmp_path / "socket", "cannot read"),
            (tmp_path / "none", "No such file"),
            (tmp_path / "x" / "\0", "null"),
            (tmp_path / ("x" * 300), "too long"),
        ):
            with pytest.raises(InputError, match=kind):
                read_bounded(path, 5, "a thing")


def test_text_is_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc\xff")
    with pytest.raises(InputError, match="byte 3 is not UTF-8 text"):
        read_text(file, 100, "a thing")
