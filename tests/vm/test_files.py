# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes by way of a file: every way, over used memory, and files that are no good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.report.result import Result
from harness.testing import Freepage, Run

slow = pytest.mark.slow

MAPPED = {"migration.mapped_ram": True}
USED = {"migration.file.used_memory": True}


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """A small guest."""
    return freepage.with_defaults(memory="256MiB")


def modes(out: Path) -> tuple[set[str], dict[str, Any]]:
    """What the source's QEMU said of its capabilities and parameters, while it wrote."""
    lines = (json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines())
    said = [line["data"] for line in lines if line["kind"] == "modes"]
    data = [one for one in said if one["side"] == "source"][-1]
    return set(data["capabilities"]), data["parameters"]


def right(run: Run) -> Result:
    """The guest came out of its file as it went in."""
    assert run.exit_code == 0, str(run)
    result = run.result
    assert result.verdict == "pass"
    assert not result.not_compared
    assert result.devices is not None
    assert result.devices.compared > 20
    assert result.file is not None
    assert result.file.restore_ms is not None
    assert not Path(result.file.path).exists()
    return result


def test_mapped_ram(freepage: Freepage) -> None:
    run = freepage.run("mapped-ram")
    result = right(run)
    capabilities, parameters = modes(run.folder)
    assert {"mapped-ram", "multifd"} <= capabilities
    assert parameters["multifd-channels"] == 4
    # A page of zeros is a hole in it.
    assert result.file is not None
    assert result.file.bytes is not None
    assert result.file.allocated is not None
    assert result.file.bytes > 256 << 20 > result.file.allocated


def test_a_background_snapshot_is_of_one_moment(freepage: Freepage) -> None:
    run = freepage.run("background-snapshot")
    result = right(run)
    assert "background-snapshot" in modes(run.folder)[0]
    assert result.file is not None
    assert result.file.written_meanwhile


@slow
@pytest.mark.parametrize("scenario", ["to-file", "snapshot", "virsh-save"])
def test_every_way(freepage: Freepage, scenario: str) -> None:
    right(freepage.run(scenario))


@slow
@pytest.mark.parametrize(
    "settings",
    [
        MAPPED,
        {**MAPPED, "migration.multifd": 2, "migration.direct_io": True},
        {"migration.xbzrle": True, "migration.bandwidth": "64MiB/s"},
        USED,
        {"migration.to": "save", "migration.file.compression": "gzip"},
        {"guest.nodes": 2, "guest.vcpus": 2, **MAPPED},
    ],
    ids=["mapped-ram", "direct-io", "xbzrle", "used-memory", "gzip", "nodes"],
)
def test_variants(freepage: Freepage, settings: dict[str, object]) -> None:
    run = freepage.run("to-file", set=settings)
    right(run)
    if settings.get("migration.direct_io"):
        assert modes(run.folder)[1]["direct-io"] is True


@slow
@pytest.mark.parametrize("arm", ["hint", "info"])
def test_free_pages_are_left_out_of_a_stream(freepage: Freepage, arm: str) -> None:
    settings = {"migration.to": "file", "expect.skipped_percent_min": 10 if arm == "info" else None}
    result = right(freepage.run("freed", arm=arm, memory="512MiB", set=settings))
    assert arm == "hint" or result.pages.skipped > 0


@slow
@pytest.mark.parametrize("mapped", [False, True])
def test_free_pages_have_no_room_in_a_file_and_read_as_zeros(freepage: Freepage, mapped: bool) -> None:
    """Over memory that was used before, as well."""
    run = freepage.run("to-file-freed", memory="512MiB", set={"migration.mapped_ram": mapped, **USED})
    result = right(run)
    assert result.pages.skipped_percent > 60
    assert result.file is not None
    assert result.file.allocated < (512 << 20) - 4096 * result.pages.skipped


@slow
def test_there_and_back_by_files(freepage: Freepage, tmp_path: Path) -> None:
    scenario = tmp_path / "twice.yaml"
    scenario.write_text(
        "name: twice\narm: off\nguest: {memory: 256MiB}\nworkload: {kind: churn, noise: 32%, rate: 3000}\n"
        "migration: {to: file}\nmoves: [{}, {}]\n"
    )
    result = right(freepage.run(str(scenario)))
    assert [move.ended for move in result.moves] == ["completed", "completed"]


@slow
def test_a_zero_page_that_is_not_cleared_is_seen_over_used_memory(freepage: Freepage) -> None:
    run = freepage.run("snapshot", fault="zero-not-cleared")
    assert run.exit_code == 1
    assert "differs-not-skipped" in {finding.rule for finding in run.result.findings}


@slow
def test_every_move_may_go_its_own_way(freepage: Freepage, tmp_path: Path) -> None:
    """Files whole and of no use, one after the other; each QEMU has what the one before it had not."""
    scenario = tmp_path / "mixed.yaml"
    scenario.write_text(
        "name: mixed\narm: off\nworkload: {kind: churn, noise: 32%, rate: 3000}\nmoves:\n"
        "- {migration: {to: file, mapped_ram: true, multifd: 2}}\n"
        "- {migration: {to: save}}\n"
        "- {migration: {to: savevm}}\n"
        "- {ends: failed, reason: No space left, migration: {to: file, file: {room: 16MiB}}}\n"
        "- {guest: paused, migration: {to: file, file: {used_memory: true}}}\n"
        "- {}\n"
    )
    run = freepage.run(str(scenario))
    assert run.exit_code == 0, str(run)
    ends = [move.ended for move in run.result.moves]
    assert ends == ["completed", "completed", "completed", "failed", "completed", "completed"]


@slow
def test_mapped_ram_over_used_memory_is_wrong(freepage: Freepage) -> None:
    """As QEMU is today; see docs/found.md."""
    run = freepage.run("to-file", set={**MAPPED, **USED})
    assert run.exit_code == 1
    assert {"differs-not-skipped"} <= {finding.rule for finding in run.result.findings}
    assert run.result.file is not None
    # It is evidence.
    assert Path(run.result.file.path).exists()


def unharmed(run: Run, words: str) -> Result:
    """The file was no good, which somebody says in these words; the guest goes on where it was."""
    assert run.exit_code == 1, str(run)
    result = run.result
    assert [finding.rule for finding in result.findings] == ["migration-ended"], str(run)
    (move,) = result.moves
    assert move.ended == "failed"
    assert words in move.reason
    assert "guest.state" in move.reason
    assert result.guest.verify_bad == 0
    assert result.guest.exercise_bad == 0
    return result


@slow
@pytest.mark.parametrize("way", ["file", "savevm", "background-snapshot"])
@pytest.mark.parametrize("share", ["10%", "90%"])
def test_a_file_that_is_cut_off(freepage: Freepage, way: str, share: str) -> None:
    run = freepage.run("to-file", set={"migration.to": way, "migration.file.cut_to": share})
    unharmed(run, "was not restored")


@slow
def test_a_mapped_file_that_is_cut_off(freepage: Freepage) -> None:
    run = freepage.run("to-file", set={**MAPPED, "migration.file.cut_to": "50%"})
    unharmed(run, "was not restored")


@slow
def test_a_mapped_file_that_is_cut_off_crashes_multifd(freepage: Freepage) -> None:
    """As QEMU is today; see docs/found.md.  The guest goes on all the same."""
    run = freepage.run("to-file", set={**MAPPED, "migration.multifd": 2, "migration.file.cut_to": "50%"})
    assert run.exit_code == 1
    (crash,) = (finding for finding in run.result.findings if finding.rule == "qemu-crashed")
    assert "SIGSEGV" in crash.text
    assert run.result.guest.verify_bad == 0


@slow
def test_mapped_ram_with_memory_that_stays_fails(freepage: Freepage) -> None:
    """As QEMU is today; see docs/found.md."""
    unharmed(freepage.run("to-file", set={**MAPPED, "guest.shared": "128MiB"}), "Bad address")


@slow
@pytest.mark.parametrize("way", ["file", "save", "savevm", "background-snapshot"])
def test_a_full_disk(freepage: Freepage, way: str) -> None:
    run = freepage.run("to-file", set={"migration.to": way, "migration.file.room": "64MiB"})
    result = unharmed(run, "Input/output error" if way == "savevm" else "No space left on device")
    assert result.file is not None
    assert result.file.bytes is None


@slow
def test_a_file_of_another_machine(freepage: Freepage) -> None:
    first = freepage.run("to-file", set={"migration.file.keep": True})
    assert first.exit_code == 0
    assert first.result.file is not None
    settings = {
        "migration.file.instead": first.result.file.path,
    }
    unharmed(freepage.run("to-file", memory="320MiB", set=settings), "was not restored")


@slow
def test_a_mapped_file_of_a_smaller_machine_is_taken(freepage: Freepage) -> None:
    """As QEMU is today; see docs/found.md."""
    first = freepage.run("to-file", set={**MAPPED, "migration.file.keep": True})
    assert first.result.file is not None
    settings = {**MAPPED, "migration.file.instead": first.result.file.path}
    run = freepage.run("to-file", memory="320MiB", set=settings)
    assert run.exit_code == 1
    assert "file-accepted" in {finding.rule for finding in run.result.findings}


@slow
def test_a_guest_that_is_taken_out_of_another_file_is_a_finding(freepage: Freepage) -> None:
    """The same machine's, so QEMU takes it; its memory is another guest's."""
    first = freepage.run("to-file", set={"migration.file.keep": True})
    assert first.result.file is not None
    run = freepage.run("to-file", set={"migration.file.instead": first.result.file.path})
    assert run.exit_code == 1
    assert "file-accepted" in {finding.rule for finding in run.result.findings}


def test_direct_io_is_refused_where_there_is_none(tmp_path: Path) -> None:
    """Before anything is built or booted, and in words."""
    words = ["run", "mapped-ram", "--set", "migration.direct_io=true", "--out", str(tmp_path / "run")]
    # ramfs is the page cache, and nothing else.
    script = 'mount -t ramfs ramfs "$1" && shift && exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    command = [*inside, sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "migration.direct_io: the file system of" in done.stderr
