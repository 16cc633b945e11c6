# SPDX-License-Identifier: GPL-2.0-or-later
"""Series, patches that do not apply, and a work tree that goes from one state to another."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.toolchain import patches
from harness.toolchain.patches import Patch, failed_hunk, patch_at, read_series, touched_files
from harness.toolchain.worktree import WorkTree

LONG_AGO = 1_000_000_000


def diff(name: str, before: str | None, after: str | None) -> str:
    return "".join(
        difflib.unified_diff(
            (before or "").splitlines(keepends=True),
            (after or "").splitlines(keepends=True),
            f"a/{name}" if before is not None else "/dev/null",
            f"b/{name}" if after is not None else "/dev/null",
        )
    )


def lines(*changed: str) -> str:
    text = [f"line {number}\n" for number in range(1, 31)]
    for change in changed:
        number, _, new = change.partition(":")
        text[int(number) - 1] = new + "\n"
    return "".join(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "patches").mkdir()
    return tmp_path / "patches"


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    tree = WorkTree(tmp_path / "tree")
    (tree.source / "dir").mkdir(parents=True)
    (tree.source / "dir" / "one.c").write_text(lines())
    (tree.source / "two.c").write_text("two\n")
    (tree.source / "gone.c").write_text("gone\n")
    for path in tree.source.rglob("*.c"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return tree


def patch(folder: Path, name: str, text: str) -> Patch:
    (folder / name).write_text(text)
    return patch_at(folder / name)


def untouched(tree: WorkTree) -> set[str]:
    return {
        str(path.relative_to(tree.source))
        for path in tree.source.rglob("*.c")
        if path.stat().st_mtime == LONG_AGO
    }


class TestSeries:
    def test_order_comments_blank_lines(self, folder: Path) -> None:
        for name in ("b.patch", "a.patch"):
            (folder / name).write_text("x")
        (folder / "series").write_text("# first\nb.patch -p1\n\na.patch # why\n")
        assert [patch.name for patch in read_series(folder / "series")] == ["b.patch", "a.patch"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("none.patch\n", ":1: there is no patch none.patch"),
            ("\na.patch -p0\n", ":2: only -p1 is supported"),
        ],
    )
    def test_located_errors(self, folder: Path, text: str, message: str) -> None:
        (folder / "a.patch").write_text("x")
        (folder / "series").write_text(text)
        with pytest.raises(InputError, match=message):
            read_series(folder / "series")

    def test_no_series(self, folder: Path) -> None:
        with pytest.raises(InputError, match="cannot read the series"):
            read_series(folder / "series")

    @pytest.mark.parametrize("kind", ["", "instrument", "moments"])
    @pytest.mark.parametrize("name", ["10.0", "10.2", "master"])
    def test_the_series_of_the_checkout_can_be_read(self, repository: Path, kind: str, name: str) -> None:
        found = read_series(repository / "qemu-patches" / kind / name / "series")
        touched = {n for p in found for n in touched_files(p.path.read_text("utf-8"), p.name)}
        # The instruments know of no device.
        assert ("hw/virtio/virtio-balloon.c" in touched) is (kind != "instrument")
        assert "migration/ram.c" in touched


class TestTouchedFiles:
    def test_changed_new_and_removed(self) -> None:
        text = "From: somebody\n---\n dir/one.c | 2 +-\n\n" + "".join(
            [diff("dir/one.c", "a\n", "b\n"), diff("new.c", None, "n\n"), diff("gone.c", "g\n", None)]
        )
        assert touched_files(text, "p") == ("dir/one.c", "new.c", "gone.c")

    def test_time_stamps_after_the_name(self) -> None:
        assert touched_files("--- a/x.c\t2020-01-01\n+++ b/x.c\t2020-01-02\n", "p") == ("x.c",)

    @pytest.mark.parametrize("name", ["../etc/passwd", "../../x"])
    def test_nothing_outside_of_the_tree(self, name: str) -> None:
        with pytest.raises(InputError, match="outside of the tree"):
            touched_files(f"--- a/{name}\n+++ b/{name}\n", "p")

    def test_renames_are_refused(self) -> None:
        with pytest.raises(InputError, match="renames"):
            touched_files("rename from a\nrename to b\n", "p")


@pytest.mark.parametrize(
    ("output", "where"),
    [
        (
            "patching file migration/ram.c\nHunk #1 succeeded at 20.\nHunk #3 FAILED at 310.\n",
            "file migration/ram.c, hunk 3, at line 310",
        ),
        (
            "patching file 'a b.c'\nHunk #1 FAILED at 1 (different line endings).\n",
            "file a b.c, hunk 1, at line 1",
        ),
        ("can't find file to patch at input line 3\n", "a file that the source does not have"),
        ("patch: **** malformed patch at line 9: xx\n", "xx"),
        (
            "patching file x.c\nReversed (or previously applied) patch detected!  Skipping patch.\n",
            "file x.c: it seems",
        ),
        ("something else", None),
    ],
)
def test_where_it_failed(output: str, where: str | None) -> None:
    found = failed_hunk(output)
    assert found is None if where is None else found is not None and found.startswith(where)


class TestWorkTree:
    def test_only_what_differs_is_written(self, tree: WorkTree, folder: Path) -> None:
        first = patch(
            folder, "1", diff("dir/one.c", lines(), lines("3:three")) + diff("new/n.c", None, "n\n")
        )
        assert tree.become([first]) == ["dir/one.c", "new/n.c"]
        assert (tree.source / "dir" / "one.c").read_text() == lines("3:three")
        assert untouched(tree) == {"two.c", "gone.c"}
        assert tree.become([first]) == []

    def test_back_to_stock(self, tree: WorkTree, folder: Path) -> None:
        change = patch(
            folder,
            "1",
            diff("two.c", "two\n", "2\n") + diff("new.c", None, "n\n") + diff("gone.c", "gone\n", None),
        )
        assert tree.become([change]) == ["gone.c", "new.c", "two.c"]
        assert not (tree.source / "gone.c").exists()
        assert tree.become([]) == ["gone.c", "new.c", "two.c"]
        assert (tree.source / "two.c").read_text() == "two\n"
        assert (tree.source / "gone.c").read_text() == "gone\n"
        assert not (tree.source / "new.c").exists()
        assert tree.become([]) == []

    def test_one_changed_patch_of_a_series(self, tree: WorkTree, folder: Path) -> None:
        one = patch(folder, "1", diff("dir/one.c", lines(), lines("3:three")))
        two = patch(folder, "2", diff("dir/one.c", lines("3:three"), lines("3:three", "20:twenty")))
        three = patch(folder, "3", diff("two.c", "two\n", "2\n"))
        tree.become([one, two, three])
        three = patch(folder, "3", diff("two.c", "two\n", "II\n"))
        assert tree.become([one, two, three]) == ["two.c"]
        assert (tree.source / "dir" / "one.c").read_text() == lines("3:three", "20:twenty")

    def test_patch_that_does_not_apply(self, tree: WorkTree, folder: Path) -> None:
        fine = patch(folder, "0001-fine.patch", diff("two.c", "two\n", "2\n"))
        text = diff("dir/one.c", lines("15:other"), lines("15:fifteen"))
        with pytest.raises(InputError) as caught:
            tree.become([fine, patch(folder, "0002-bad.patch", text)])
        assert caught.value.exit_code == 2
        assert "0002-bad.patch does not apply: file dir/one.c, hunk 1, at line 12" in str(caught.value)
        assert (tree.source / "two.c").read_text() == "two\n"
        assert untouched(tree) == {"dir/one.c", "two.c", "gone.c"}

    def test_second_time_the_same_patch(self, tree: WorkTree, folder: Path) -> None:
        change = patch(folder, "1", diff("two.c", "two\n", "2\n"))
        with pytest.raises(InputError, match=r"does not apply: file two.c"):
            tree.become([change, change])

    def test_patch_for_a_file_that_is_not_there(self, tree: WorkTree, folder: Path) -> None:
        with pytest.raises(InputError, match="does not apply"):
            tree.become([patch(folder, "1", diff("nowhere.c", "a\n", "b\n"))])

    def test_no_fuzz(self, tree: WorkTree, folder: Path) -> None:
        roughly = diff("dir/one.c", lines("14:near"), lines("14:near", "16:sixteen"))
        with pytest.raises(InputError, match="does not apply"):
            tree.become([patch(folder, "1", roughly)])

    def test_patch_edited_after_it_was_read(self, tree: WorkTree, folder: Path) -> None:
        # Its digest is in the key of what is built: that has to be what was applied.
        change = patch(folder, "1", diff("two.c", "two\n", "2\n"))
        patch(folder, "1", diff("two.c", "two\n", "II\n"))
        tree.become([change])
        assert (tree.source / "two.c").read_text() == "2\n"

    def test_survives_a_kill_between_two_files(
        self, tree: WorkTree, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change = patch(folder, "1", diff("dir/one.c", lines(), lines("1:x")) + diff("two.c", "two\n", "2\n"))
        settle = WorkTree._settle

        def killed(self: WorkTree, name: str, stage: Path, patched: bool) -> bool:
            if name == "two.c":
                raise KeyboardInterrupt
            return settle(self, name, stage, patched)

        monkeypatch.setattr(WorkTree, "_settle", killed)
        with pytest.raises(KeyboardInterrupt):
            tree.become([change])
        monkeypatch.undo()
        tree.become([])
        assert (tree.source / "dir" / "one.c").read_text() == lines()

    def test_local_tree_that_changes_below_the_patches(
        self, tree: WorkTree, folder: Path, tmp_path: Path
    ) -> None:
        change = patch(folder, "1", diff("two.c", "two\n", "2\n") + diff("new.c", None, "n\n"))
        tree.become([change])
        upstream = tmp_path / "upstream"
        upstream.mkdir()
        (upstream / "two.c").write_text("zwei\n")
        tree.refresh(upstream, ["two.c"], ["gone.c"])
        with pytest.raises(InputError, match="does not apply"):
            tree.become([change])
        assert tree.become([]) == ["new.c", "two.c"]
        assert (tree.source / "two.c").read_text() == "zwei\n"
        assert not (tree.source / "gone.c").exists()


def test_apply_needs_no_network_or_tree(tmp_path: Path, folder: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    touched = patches.apply_series([patch(folder, "1", diff("n.c", None, "n\n"))], stage, lambda _name: None)
    assert touched == {"n.c"}
    assert (stage / "n.c").read_text() == "n\n"
