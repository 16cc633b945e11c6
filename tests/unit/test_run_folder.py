# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folder is never overwritten and says when it is not complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.report.folder import INCOMPLETE_MARKER, RunFolder, demand_new


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(InputError, match="exists already") as caught:
        RunFolder.create(tmp_path, "idle", "info")
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make"):
        RunFolder.create(tmp_path / "file" / "run", "idle", "info")


def test_fresh_names_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {RunFolder.create(None, "idle", "info").path for _ in range(5)}
    assert len(folders) == 5
    assert all(path.parent == tmp_path / "runs" for path in folders)


def test_incomplete_until_finished(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    assert not folder.complete
    folder.finish()
    assert folder.complete


def test_an_early_end_stays_incomplete_and_says_why(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    folder.finish("interrupted while migrating")
    assert not folder.complete
    assert "interrupted while migrating" in folder.file(INCOMPLETE_MARKER).read_text()


def test_files_are_written_once(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    path = folder.write_whole("result.json", "{}")
    assert path.read_text() == "{}"
    with pytest.raises(FileExistsError):
        folder.write_whole("result.json", "other")
    assert path.read_text() == "{}"
    folder.write_text("source.xml", "<domain/>")
    with pytest.raises(FileExistsError):
        folder.write_text("source.xml", "")
    assert sorted(p.name for p in folder.path.iterdir()) == [INCOMPLETE_MARKER, "result.json", "source.xml"]


def test_where_no_folder_can_be_made_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, words in (
        (tmp_path, "exists already"),
        (tmp_path / "dangling", "exists already"),
        (tmp_path / "file" / "run", "Not a directory|is not a folder"),
        (Path("/proc/run"), "cannot make"),
        (tmp_path / "a\nb", "control characters|in its name"),
        (tmp_path / "\udcff", "in its name"),
        (tmp_path / ("x" * 300) / "y", "too long"),
        (tmp_path / ("x/" * 3000), "bytes"),
    ):
        with pytest.raises(InputError, match=words):
            demand_new(path)
    for name in ("new", "a:b", "a b", "a,b", "ä€", "a'b\"c&<d", "one/two"):
        demand_new(tmp_path / name)
    monkeypatch.chdir("/proc")
    with pytest.raises(InputError, match="cannot make"):
        demand_new(None)


def test_the_note_of_an_early_end_needs_no_room(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    before = folder.file(INCOMPLETE_MARKER).stat().st_ino
    folder.finish("short")
    assert folder.file(INCOMPLETE_MARKER).stat().st_ino == before
    assert folder.file(INCOMPLETE_MARKER).read_text() == "short\n"
    assert not folder.has_verdict


def test_only_a_complete_folder_with_a_result_has_a_verdict(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    folder.write_whole("result.json", "{}")
    assert not folder.has_verdict
    folder.finish()
    assert folder.has_verdict
