# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a program were reached: what gcov says of it, added up over runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError, MachineryError
from harness.hunt import conduct
from harness.hunt.coverage import CoverageReport
from harness.hunt.hunter import HuntReport
from harness.hunt.lines import CodeReport, SourceLines, own_file
from harness.hunt.page import page
from harness.hunt.reached import ReachedLines, notes_of
from harness.plan.plan import Tools
from harness.toolchain import QemuBinary
from harness.toolchain.counted import COUNTERS_VARIABLE, counts_lines, keep_notes

_RAM = """\
int save(int mode);
static int plain(int x)
{
    return x + 1;
}
static int compressed(int x)
{
    if (x > 5) {
        x = 7;
    }
    return x;
}
int save(int mode)
{
    return mode ? compressed(mode) : plain(mode);
}
"""
_MAIN = """\
int save(int mode);
int main(int argc, char **argv)
{
    return argc > 2 ? 0 : save(argc - 1) < 0;
}
"""


def document(counts: dict[int, tuple[str, int]], file: str = "../source/migration/ram.c") -> dict[str, Any]:
    lines = [{"line_number": n, "function_name": word, "count": c} for n, (word, c) in counts.items()]
    others = {"file": "/usr/include/inline.h", "lines": [{"line_number": 1, "count": 5}]}
    files = [{"file": file, "lines": lines}, others]
    return {"data_file": "libsystem.a.p/migration_ram.c.gcda", "files": files}


def test_lines_are_added_up() -> None:
    lines = SourceLines()
    assert lines.learn(document({3: ("f", 0), 4: ("f", 0), 9: ("f", 0), 12: ("g", 0)})) == 0
    assert lines.learn(document({3: ("f", 1), 4: ("f", 0), 9: ("f", 0), 12: ("g", 0)})) == 1
    assert lines.learn(document({3: ("f", 4), 4: ("f", 0), 9: ("f", 0), 12: ("g", 0)})) == 0
    report = SourceLines.of(json.loads(json.dumps(lines.document()))).report(2, 1)
    [file] = report.files
    assert (file.file, file.lines, file.reached) == ("migration/ram.c", 4, 1)
    assert [(one.function, one.line, one.reached, one.missed) for one in report.missed] == [
        ("f", 3, 1, "4-9"),
        ("g", 12, 0, "12"),
    ]
    assert [one.function for one in report.never("migration")] == ["g"]
    assert report.never("hw") == ()
    assert report.parts()["migration"].lines == 4
    with pytest.raises(ValueError, match="no lines"):
        SourceLines.of({"migration/ram.c": {"functions": []}})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("../source/migration/ram.c", "migration/ram.c"),
        ("/home/hw/migration/ram.c", "migration/ram.c"),
        ("migration/ram.c", "migration/ram.c"),
        ("/usr/include/hw/ram.c", None),
        ("../source/include/migration/ram.h", None),
    ],
)
def test_of_an_object_its_own_source_counts(path: str, name: str | None) -> None:
    assert own_file(path, "migration_ram.c") == name


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of two objects, built as QEMU is, that counts its lines."""
    if shutil.which("gcc") is None or shutil.which("gcov") is None:
        pytest.skip("there is no gcc")
    root = tmp_path_factory.mktemp("tree")
    objects = []
    (root / "build" / "lib.a.p").mkdir(parents=True)
    for name, text in (("migration/ram.c", _RAM), ("hw/main.c", _MAIN)):
        source = root / "source" / name
        source.parent.mkdir(parents=True)
        source.write_text(text)
        objects.append(f"lib.a.p/{name.replace('/', '_')}.o")
        command = ["gcc", "--coverage", "-fprofile-abs-path", "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True, cwd=root / "build")
    subprocess.run(["gcc", "--coverage", *objects, "-o", "qemu"], check=True, cwd=root / "build")
    return root / "build"


def run(build: Path, counters: Path, *words: str) -> None:
    env = {**os.environ, COUNTERS_VARIABLE: str(counters)}
    subprocess.run([str(build / "qemu"), *words], check=True, env=env)


def test_a_function_of_a_mode_is_reached_with_the_mode(build: Path, tmp_path: Path) -> None:
    """Also: what was kept is added to, and a run without counters is counted as such."""
    keep_notes(build, tmp_path / "notes")
    lines = ReachedLines(tmp_path / "notes", tmp_path / "lines.json")
    assert [one.reached for one in lines.report().files] == [0, 0]
    run(build, tmp_path / "1")
    lines.take(tmp_path / "1")
    assert [one.function for one in lines.report().never("migration")] == ["compressed"]
    run(build, tmp_path / "2", "mode")
    again = ReachedLines(tmp_path / "notes", tmp_path / "lines.json")
    again.take(tmp_path / "2")
    again.take(tmp_path / "3")
    report = again.report()
    assert (report.runs, report.without) == (2, 1)
    assert report.never("migration") == ()
    [missed] = report.missed
    assert (missed.file, missed.function, missed.missed) == ("migration/ram.c", "compressed", "9")


def test_counters_of_another_program_are_none(build: Path, tmp_path: Path) -> None:
    run(build, tmp_path / "1")
    for path in (tmp_path / "1").rglob("*.gcda"):
        path.write_bytes(b"torn")
    lines = ReachedLines(build, tmp_path / "lines.json")
    lines.take(tmp_path / "1")
    report = lines.report()
    assert [one.reached for one in report.files] == [0, 0]
    assert (report.runs, report.without) == (0, 1)
    assert "not a gcov data file" in report.trouble
    (tmp_path / "lines.json").write_text("{}")
    with pytest.raises(MachineryError, match="does not say"):
        ReachedLines(build, tmp_path / "lines.json")


def test_notes_that_gcov_cannot_read_are_said_before_anything_is_counted(tmp_path: Path) -> None:
    (tmp_path / "one.c.gcno").write_bytes(b"no notes")
    with pytest.raises(MachineryError, match="gcov reads nothing of QEMU's notes"):
        ReachedLines(tmp_path, tmp_path / "lines.json")
    assert not (tmp_path / "lines.json").exists()


def test_a_program_says_whether_it_counts(build: Path, tmp_path: Path) -> None:
    assert counts_lines(build / "qemu")
    (tmp_path / "empty").touch()
    assert not counts_lines(tmp_path / "empty")
    assert not counts_lines(tmp_path / "nothing")


def test_the_notes_are_beside_it(build: Path, tmp_path: Path) -> None:
    qemu = QemuBinary(build / "qemu", (), "10.0", "0", "external", True, True, counts_lines=True)
    assert notes_of(qemu) == build
    with pytest.raises(InputError, match="are not beside it"):
        notes_of(replace(qemu, path=tmp_path / "qemu"))
    with pytest.raises(InputError, match="does not count"):
        notes_of(replace(qemu, counts_lines=False))


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        (Tools(source_qemu="debian:trixie", destination_qemu="debian:trixie"), "is not built here"),
        (Tools(source_qemu="stock"), "one QEMU for both sides"),
        (Tools(fault="page-tail-lost"), "nothing to say beside --fault"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    tools: Tools, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hunt = {"minutes": 1, "seed": 1, "only": (), "jobs": 1, "out": tmp_path / "hunt", "coverage": True}
    with pytest.raises(InputError, match=words):
        conduct.conduct_hunt(tools, (), **hunt)
    monkeypatch.setattr(conduct, "search_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match="no program gcov"):
        conduct.conduct_hunt(Tools(), (), **hunt)
    assert not (tmp_path / "hunt").exists()


def test_the_report_for_people_and_its_page() -> None:
    lines = SourceLines()
    lines.learn(document({3: ("f", 1), 4: ("f", 0), 7: ("", 0), 12: ("never_called", 0)}))
    coverage = CoverageReport(2, 1, 1, 0, ("<b>",), ())
    report = HuntReport(1, "qemu", 3, {"right": 3}, (), (), {}, {"no": 1}, {}, coverage, "time is up")
    code: CodeReport = lines.report(3, 0)
    text = "\n".join(conduct.summarise_hunt(replace(report, code=code)))
    assert "migration/: 1 of 4 lines reached (25.0 %)" in text
    assert "no run was in ()" not in text
    assert "no run was in never_called() (migration/ram.c:12, 1 lines)" in text
    assert "lines of QEMU" not in "\n".join(conduct.summarise_hunt(report))
    html = page(replace(report, code=code))
    assert "migration/ram.c: 1 of 4" in html
    assert "&lt;b&gt;" in html
    assert "QEMU's code" not in page(report)
