# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a version's patches: what each goes on top of, and all of them made to fit another source."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from harness.toolchain.patches import read_series
from harness.toolchain.series import HowItFits, check_series
from harness.toolchain.series_parts import check_parts, parts_for, refresh_parts

LINES = [f"line {number}\n" for number in range(1, 61)]
#: Which line each part changes; the moments' one is beside that of free page info.
CHANGES = {"": 10, "instrument": 40, "moments": 11}


def changed(*kinds: str) -> list[str]:
    lines = list(LINES)
    for kind in kinds:
        lines[CHANGES[kind] - 1] = f"{kind or 'info'}\n"
    return lines


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "qemu"
    tree.mkdir()
    (tree / "VERSION").write_text("10.2.2\n")
    (tree / "one.c").write_text("".join(LINES))
    return tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three parts of one patch each."""
    folder = tmp_path / "patches"
    for kind, below in (("", ()), ("instrument", ()), ("moments", ("", "instrument"))):
        home = folder / kind / "10.0"
        home.mkdir(parents=True)
        diff = difflib.unified_diff(changed(*below), changed(*below, kind), "a/one.c", "b/one.c")
        name = f"0001-{kind or 'info'}.patch"
        (home / name).write_text("diff --git a/one.c b/one.c\n" + "".join(diff))
        (home / "series").write_text(f"{name}\n")
    return folder


def test_each_on_top_of_what_it_needs(tree: Path, folder: Path) -> None:
    fits = check_parts(parts_for(folder, tree), tree)
    assert [(fit.patch, fit.fit) for fit in fits] == [
        ("0001-info.patch", HowItFits.EXACT),
        ("instrument/0001-instrument.patch", HowItFits.EXACT),
        ("moments/0001-moments.patch", HowItFits.EXACT),
    ]


def test_instruments_that_free_page_info_is_in_the_way_of(tree: Path, folder: Path) -> None:
    """They fit the bare source, and a build of both would fail."""
    diff = difflib.unified_diff(changed(), [*changed()[:9], "other\n", *changed()[10:]], "a/one.c", "b/one.c")
    (folder / "instrument" / "10.0" / "0001-instrument.patch").write_text("".join(diff))
    _, fit, _ = check_parts(parts_for(folder, tree), tree)
    assert fit.fit is HowItFits.NOT
    assert fit.why == "on top of free page info: file one.c, hunk 1, at line 7"


def test_all_are_written_or_none(tree: Path, folder: Path, tmp_path: Path) -> None:
    (tree / "one.c").write_text("".join(["before\n", *LINES]))
    assert {fit.fit for fit in refresh_parts(parts_for(folder, tree), tree, None, folder)} == {
        HowItFits.MOVED
    }
    parts = parts_for(folder, tree)
    assert [part.series for part in parts] == ["10.2"] * 3
    assert {fit.fit for fit in check_parts(parts, tree)} == {HowItFits.EXACT}
    instruments = read_series(folder / "instrument" / "10.2" / "series")
    assert [fit.fit for fit in check_series(instruments, tree)] == [HowItFits.EXACT]

    (tree / "one.c").write_text("".join(changed("moments")))
    out = tmp_path / "out"
    fits = refresh_parts(parts_for(folder, tree, "10.0"), tree, out, folder)
    assert HowItFits.NOT in {fit.fit for fit in fits}
    assert not out.exists()
