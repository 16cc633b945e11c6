# SPDX-License-Identifier: GPL-2.0-or-later
"""Recipes of guests that are more than the small image, and the copies of their disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.run.disk import copy_sparse
from harness.toolchain.compiling import read_compile_recipe
from harness.toolchain.distribution import read_distribution_recipe

HOLE = 8 << 20


def test_the_recipes_that_ship_name_what_is_there(repository: Path) -> None:
    guest = repository / "vm-images" / "guest"
    read_compile_recipe(repository / "vm-images" / "compile.yaml")
    debian = read_distribution_recipe(repository / "vm-images" / "debian.yaml")
    for name in [*debian.programs.values(), "stage"]:
        assert (guest / f"{name}.c").exists(), name
    for text in (*debian.files.values(), *debian.scripts.values()):
        assert text.endswith("\n")
    # What a unit starts is there.
    started = [
        line.split("=", 1)[1]
        for text in debian.files.values()
        for line in text.splitlines()
        if line.startswith("ExecStart=")
    ]
    assert set(started) <= set(debian.scripts)


def test_a_recipe_that_is_wrong_is_bad_input(tmp_path: Path) -> None:
    for read in (read_compile_recipe, read_distribution_recipe):
        with pytest.raises(InputError):
            read(tmp_path / "none.yaml")
        (tmp_path / "wrong.yaml").write_text("suite: bookworm\nsurprise: 1\n")
        with pytest.raises(InputError, match=r"wrong\.yaml"):
            read(tmp_path / "wrong.yaml")


def test_a_copy_has_the_same_content_and_the_same_holes(tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    with disk.open("wb") as file:
        file.truncate(3 * HOLE + 4096)
        for at in (0, HOLE + 4096, 3 * HOLE):
            file.seek(at)
            file.write(os.urandom(4096))
    copy_sparse(disk, copy)
    assert copy.read_bytes() == disk.read_bytes()
    if disk.stat().st_blocks * 512 < HOLE:  # a file system with holes
        assert copy.stat().st_blocks * 512 < HOLE
    with pytest.raises(FileExistsError):
        copy_sparse(disk, copy)


def test_a_copy_to_another_file_system_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over 9p: nothing is said of holes, and the kernel copies nothing from one to the other."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr("harness.run.disk._data", lambda _, size: [(0, size)])
    test_a_copy_has_the_same_content_and_the_same_holes(tmp_path)


def test_a_disk_that_is_all_hole_is_copied(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(HOLE)
    copy_sparse(disk, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == HOLE
