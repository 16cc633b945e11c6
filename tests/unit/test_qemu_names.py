# SPDX-License-Identifier: GPL-2.0-or-later
"""What --qemu names, and how Debian's QEMU is put together from unpacked packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cli.options import tools_of
from harness.errors import InputError
from harness.toolchain.debian_qemu import foreign_libraries, make_links_relative
from harness.toolchain.qemu_names import canonical, file_of


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first in PATH, with a program in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "qemu-system-mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_ours_and_debians_keep_their_names() -> None:
    for name in ("patched", "stock", "debian:bookworm", "debian:trixie-backports"):
        assert canonical(name) == name
        assert file_of(name) is None


def test_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical("./build/qemu") == f"{tmp_path}/build/qemu"
    assert file_of(f"{tmp_path}/qemu") == tmp_path / "qemu"


def test_a_word_is_looked_up_in_path(programs: Path) -> None:
    assert canonical("qemu-system-mine") == str(programs / "qemu-system-mine")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("debian:bokworm", "'debian:bookworm'"),
        ("pached", "'patched'"),
        ("qemu-system-min", "'qemu-system-mine'"),
    ],
)
@pytest.mark.usefixtures("programs")
def test_what_nothing_is_called(word: str, near: str) -> None:
    with pytest.raises(InputError, match=f"no such QEMU: '{word}'") as caught:
        canonical(word)
    assert near in str(caught.value.hint)


def test_a_file_here_is_a_path_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-qemu").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        canonical("my-qemu")
    assert "./my-qemu" in str(caught.value.hint)


def test_sides_are_named_each_for_itself() -> None:
    tools = tools_of("debian:trixie", None, "stock", None, None)
    assert (tools.source_qemu, tools.destination_qemu) == ("debian:trixie", "stock")
    assert tools.options() == ["--source-qemu", "debian:trixie", "--destination-qemu", "stock"]
    assert tools.qemu_files == ()


def test_links_between_packages_do_not_leave_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/share/qemu").mkdir(parents=True)
    (root / "usr/share/seabios").mkdir()
    (root / "usr/share/seabios/bios.bin").write_text("ours")
    link = root / "usr/share/qemu/bios.bin"
    link.symlink_to("/usr/share/seabios/bios.bin")
    (root / "usr/share/firmware").symlink_to("/usr/share/seabios")
    kept = root / "usr/share/qemu/same.bin"
    kept.symlink_to("bios.bin")
    make_links_relative(root)
    moved = root.rename(tmp_path / "elsewhere")
    assert (moved / "usr/share/qemu/bios.bin").read_text() == "ours"
    assert (moved / "usr/share/firmware/bios.bin").read_text() == "ours"
    assert (moved / "usr/share/qemu/same.bin").readlink() == Path("bios.bin")


def test_libraries_of_this_machine_are_seen() -> None:
    root = Path("/cache/root")
    said = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibz.so.1 => /cache/root/lib/libz.so.1 (0x00007f0a)\n"
        "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0b)\n"
        "\tlibfuse3.so.4 => not found\n"
        "\t/cache/root/usr/bin/ld.so (0x00007f0c)\n"
    )
    assert foreign_libraries(said, root) == ["libm.so.6", "libfuse3.so.4"]
