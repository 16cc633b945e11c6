# SPDX-License-Identifier: GPL-2.0-or-later
"""A series on another version of its source: what fits, what does not and why, and the series made to fit."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.toolchain.patches import Patch, read_series
from harness.toolchain.series import (
    HowItFits,
    check_series,
    nearest_series,
    refresh_series,
    series_name,
    tree_version,
)

LINES = [f"line {number}\n" for number in range(1, 31)]


def diff(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"a/{name}" if before else "/dev/null",
        f"b/{name}",
    )
    return f"diff --git a/{name} b/{name}\n{'' if before else 'new file mode 100644'}\n{''.join(lines)}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "qemu"
    (tree / "dir").mkdir(parents=True)
    (tree / "VERSION").write_text("10.2.2\n")
    (tree / "dir" / "one.c").write_text("".join(LINES))
    return tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of two patches: one changes line 20 of a file, the other adds a file and changes line 22."""
    folder = tmp_path / "patches" / "10.0"
    folder.mkdir(parents=True)
    first = [*LINES[:19], "line 20, changed\n", *LINES[20:]]
    second = [*first[:21], "line 22, changed\n", *first[22:]]
    texts = {
        "0001-a.patch": "Subject: [PATCH] a\n\nWhy.\n---\n"
        + diff("dir/one.c", "".join(LINES), "".join(first)),
        "0002-b.patch": "Subject: [PATCH] b\n---\n"
        + diff("dir/one.c", "".join(first), "".join(second))
        + diff("dir/new.c", "", "new\n"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "series").write_text("".join(f"{name}\n" for name in texts))
    return folder


def patches(folder: Path) -> tuple[Patch, ...]:
    return read_series(folder / "series")


def rewrite(tree: Path, lines: list[str]) -> None:
    (tree / "dir" / "one.c").write_text("".join(lines))


class TestCheck:
    def test_exact(self, tree: Path, folder: Path) -> None:
        assert [fit.fit for fit in check_series(patches(folder), tree)] == [HowItFits.EXACT, HowItFits.EXACT]

    def test_the_tree_is_not_written_to(self, tree: Path, folder: Path) -> None:
        check_series(patches(folder), tree)
        assert (tree / "dir" / "one.c").read_text() == "".join(LINES)
        assert not (tree / "dir" / "new.c").exists()

    def test_moved(self, tree: Path, folder: Path) -> None:
        rewrite(tree, ["before\n"] * 7 + LINES)
        assert [(fit.fit, fit.why) for fit in check_series(patches(folder), tree)] == [
            (HowItFits.MOVED, "by up to 7 lines")
        ] * 2

    def test_other_lines_around(self, tree: Path, folder: Path) -> None:
        rewrite(tree, [*LINES[:16], "other\n", *LINES[17:]])
        first, second = check_series(patches(folder), tree)
        assert first.fit is HowItFits.ROUGHLY
        assert "at line 17" in first.why
        assert second.fit is HowItFits.EXACT

    def test_what_is_changed_is_other(self, tree: Path, folder: Path) -> None:
        rewrite(tree, [*LINES[:19], "other\n", *LINES[20:]])
        first, second = check_series(patches(folder), tree)
        assert first.fit is HowItFits.NOT
        assert first.why == "file dir/one.c, hunk 1, at line 17"
        assert second.fit is HowItFits.ROUGHLY

    def test_a_file_that_has_moved_is_named(self, tree: Path, folder: Path) -> None:
        (tree / "elsewhere").mkdir()
        (tree / "dir" / "one.c").rename(tree / "elsewhere" / "one.c")
        first, _ = check_series(patches(folder), tree)
        assert first.fit is HowItFits.NOT
        assert first.why == "file dir/one.c is not in the tree; there is elsewhere/one.c"

    def test_there_already(self, tree: Path, folder: Path) -> None:
        refresh_series(patches(folder), tree, folder.parent / "unused")
        rewrite(tree, [*LINES[:19], "line 20, changed\n", *LINES[20:]])
        first, _ = check_series(patches(folder), tree)
        assert first.fit is HowItFits.NOT


class TestRefresh:
    def test_what_was_written_fits_exactly(self, tree: Path, folder: Path) -> None:
        rewrite(tree, ["before\n"] * 7 + [*LINES[:16], "other\n", *LINES[17:]])
        out = folder.parent / "10.2"
        fits = refresh_series(patches(folder), tree, out)
        assert [fit.fit for fit in fits] == [HowItFits.ROUGHLY, HowItFits.MOVED]
        assert {fit.fit for fit in check_series(patches(out), tree)} == {HowItFits.EXACT}

    def test_the_words_are_kept(self, tree: Path, folder: Path) -> None:
        rewrite(tree, ["before\n", *LINES])
        out = folder.parent / "10.2"
        refresh_series(patches(folder), tree, out)
        assert (out / "0001-a.patch").read_text().startswith("Subject: [PATCH] a\n\nWhy.\n---\n")
        assert "new file mode" in (out / "0002-b.patch").read_text()

    def test_nothing_is_written_if_one_does_not_fit(self, tree: Path, folder: Path) -> None:
        rewrite(tree, LINES[:10])
        out = folder.parent / "10.2"
        assert HowItFits.NOT in {fit.fit for fit in refresh_series(patches(folder), tree, out)}
        assert not out.exists()

    def test_a_series_is_not_written_over(self, tree: Path, folder: Path) -> None:
        with pytest.raises(InputError, match="holds a series"):
            refresh_series(patches(folder), tree, folder)


class TestWhichSeries:
    @pytest.mark.parametrize(
        ("version", "series"),
        [("10.2.2", "10.2"), ("10.1.0", "10.0"), ("11.0.50", "10.2"), ("9.2.0", "10.0")],
    )
    def test_the_last_before_the_tree(self, tree: Path, folder: Path, version: str, series: str) -> None:
        (folder.parent / "10.2").mkdir()
        (folder.parent / "10.2" / "series").write_text("")
        (folder.parent / "faults").mkdir()
        (tree / "VERSION").write_text(version)
        assert nearest_series(folder.parent, tree).parent.name == series

    @pytest.mark.parametrize(
        ("version", "series"), [("10.2.50", "master"), ("10.2.90", "master"), ("10.2.2", "10.0")]
    )
    def test_what_is_on_the_way_to_the_next_release(
        self, tree: Path, folder: Path, version: str, series: str
    ) -> None:
        (folder.parent / "master").mkdir()
        (folder.parent / "master" / "series").write_text("")
        (tree / "VERSION").write_text(version)
        assert nearest_series(folder.parent, tree).parent.name == series

    def test_version(self, tree: Path) -> None:
        assert (tree_version(tree), series_name(tree)) == ("10.2.2", "10.2")

    @pytest.mark.parametrize("text", ["", "ten", "10.0\nrm", "../10.0"])
    def test_no_version(self, tree: Path, text: str) -> None:
        (tree / "VERSION").write_text(text)
        with pytest.raises(InputError, match="no version"):
            tree_version(tree)

    def test_no_tree(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a QEMU source tree"):
            tree_version(tmp_path)
