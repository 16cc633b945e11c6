# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of memory is packed, and unpacked with the same holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.memory.packed import extents_of, keep_memory, restore_memory

PAGE = 4096


def _holes(path: Path) -> list[bool]:
    """Of each page, whether it is a hole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return [os.lseek(descriptor, at, os.SEEK_HOLE) == at for at in range(0, size, PAGE)]
    finally:
        os.close(descriptor)


@pytest.fixture
def ram(tmp_path: Path) -> Path:
    """Sixteen pages: one with data, one with zeros, a run of data, and holes."""
    path = tmp_path / "ram"
    with path.open("wb") as file:
        file.truncate(16 * PAGE)
        for page, content in ((1, b"a" * PAGE), (3, bytes(PAGE)), (7, os.urandom(4 * PAGE))):
            file.seek(page * PAGE)
            file.write(content)
    return path


def _empty(path: Path, pages: int = 16) -> Path:
    with path.open("wb") as file:
        file.truncate(pages * PAGE)
    return path


def test_what_was_a_hole_is_one_again(ram: Path, tmp_path: Path) -> None:
    """And a page of zeros that somebody had touched is none."""
    keep_memory(ram, tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_size <= 16 * PAGE
    back = _empty(tmp_path / "back")
    restore_memory(tmp_path / "kept", back)
    assert back.read_bytes() == ram.read_bytes()
    assert _holes(back) == _holes(ram)


def test_memory_that_nobody_has_touched_is_kept_as_none(tmp_path: Path) -> None:
    """Nothing in it, nothing written."""
    keep_memory(_empty(tmp_path / "ram"), tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_size == 0
    restore_memory(tmp_path / "kept", _empty(tmp_path / "back"))


@pytest.mark.parametrize("wrong", ["shorter", "not-empty", "cut", "longer"])
def test_what_does_not_fit_is_refused(wrong: str, ram: Path, tmp_path: Path) -> None:
    """Another length, memory that holds something, a file that was cut."""
    kept, back = tmp_path / "kept", _empty(tmp_path / "back", 15 if wrong == "shorter" else 16)
    keep_memory(ram, kept)
    if wrong == "not-empty":
        back.write_bytes(b"x" * 16 * PAGE)
    if wrong == "cut":
        os.truncate(kept, kept.stat().st_size - PAGE)
    if wrong == "longer":
        with kept.open("ab") as file:
            file.write(b"more")
    assert extents_of(kept).exists()
    with pytest.raises(MachineryError):
        restore_memory(kept, back)
