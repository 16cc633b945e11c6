# SPDX-License-Identifier: GPL-2.0-or-later
"""The archive writer, against its own reader and against the cpio program."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.toolchain import cpio

ENTRIES = cpio.with_parents(
    [
        cpio.directory("/root", 0o700),
        cpio.file("/root/.ssh/authorized_keys", b"ssh-ed25519 AAAA\n", 0o600),
        cpio.file("/init", b"\x7fELF" + bytes(5), 0o755),
        cpio.file("/empty", b""),
        cpio.symlink("/bin/sh", "busybox"),
        cpio.character_device("/dev/console", 5, 1),
        cpio.directory("/tmp", 0o1777),
    ]
)


def archive(entries: list[cpio.CpioEntry]) -> bytes:
    out = io.BytesIO()
    cpio.write_cpio(out, entries)
    return out.getvalue()


def test_parents_come_first_and_once() -> None:
    names = [entry.path for entry in ENTRIES]
    assert names.index("root") < names.index("root/.ssh") < names.index("root/.ssh/authorized_keys")
    assert len(set(names)) == len(names)
    modes = {entry.path: entry.mode for entry in ENTRIES}
    assert modes["root"] == stat.S_IFDIR | 0o700
    assert modes["root/.ssh"] == stat.S_IFDIR | 0o755
    assert modes["bin"] == stat.S_IFDIR | 0o755


def test_round_trip() -> None:
    read = list(cpio.read_cpio(archive(ENTRIES)))
    assert [(e.path, e.mode, e.data, e.device) for e in read] == [
        (e.path, e.mode, e.data, e.device) for e in ENTRIES
    ]


@given(st.lists(st.tuples(st.text("abc/xyz", min_size=1, max_size=9), st.binary(max_size=40)), max_size=8))
def test_round_trip_of_anything(members: list[tuple[str, bytes]]) -> None:
    entries = [cpio.file(name.strip("/") or "x", data) for name, data in members]
    data = archive(entries)
    assert len(data) % 512 == 0
    assert [(e.name, e.data) for e in cpio.read_cpio(data)] == [(e.name, e.data) for e in entries]


def test_same_entries_same_bytes() -> None:
    assert archive(ENTRIES) == archive(list(ENTRIES))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio program to compare with")
def test_the_cpio_program_reads_the_same() -> None:
    listed = subprocess.run(["cpio", "-itv"], input=archive(ENTRIES), capture_output=True, check=True)
    lines = [line.split() for line in listed.stdout.decode().splitlines()]
    found = {words[-3] if "->" in words else words[-1]: words[0] for words in lines}
    assert found == {entry.path: stat.filemode(entry.mode) for entry in ENTRIES}
    console = next(words for words in lines if words[-1] == "dev/console")
    assert console[4:6] == ["5,", "1"]
    assert all(words[2:4] == ["root", "root"] for words in lines)


def test_later_archive_follows_at_a_multiple_of_four(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(archive(ENTRIES)[:-3])  # a tool that pads less
    (tmp_path / "two").write_bytes(archive([cpio.file("/root/key", b"k")]))
    cpio.concatenate(tmp_path / "both", [tmp_path / "one", tmp_path / "two"])
    data = (tmp_path / "both").read_bytes()
    assert data.index(b"070701", data.index(b"TRAILER!!!")) % 4 == 0
    assert [e.path for e in cpio.read_cpio(data)] == [*(e.path for e in ENTRIES), "root/key"]


@pytest.mark.parametrize("broken", [b"garbage", archive(ENTRIES)[:700]])
def test_broken_archive(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"no cpio header|ends inside"):
        list(cpio.read_cpio(broken))
