# SPDX-License-Identifier: GPL-2.0-or-later
"""Names and versions of Debian's packages, and which mirror is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.toolchain import debian_archive
from harness.toolchain.debian_archive import (
    SourcePackage,
    first_alternatives,
    system_mirror,
)


def test_first_alternatives() -> None:
    depends = "libc6 (>= 2.36), libcrypt1 (>= 1:4.1.0) | libxcrypt, libtommath1:any"
    assert first_alternatives(depends) == ("libc6", "libcrypt1", "libtommath1")
    assert first_alternatives("") == ()


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("1:10.0.2+ds-2+deb13u1", "10.0.2"),
        ("1:10.0.13+ds-0+deb13u1", "10.0.13"),
        ("1:7.2+dfsg-7", "7.2"),
        ("9.1.0-1", "9.1.0"),
    ],
)
def test_upstream_version(version: str, upstream: str) -> None:
    assert SourcePackage("qemu", version, ()).upstream == upstream


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "debian.sources",
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: x\n",
            "http://mirror.example/debian",
        ),
        (
            "a.list",
            "deb [signed-by=/k] https://mirror.example/debian bookworm main\n",
            "https://mirror.example/debian",
        ),
        ("a.list", "# deb http://old.example/debian bookworm main\n", None),
        ("a.list", "deb http://archive.example/ubuntu noble main\n", None),
        ("a.list", "deb http://mirror.example/debian-security bookworm-security main\n", None),
        ("a.save", "deb http://mirror.example/debian bookworm main\n", None),
    ],
)
def test_system_mirror(tmp_path: Path, name: str, text: str, mirror: str | None) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text)
    assert system_mirror(tmp_path) == mirror


def test_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(debian_archive.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(debian_archive, "system_mirror", lambda: debian_archive.DEFAULT_MIRROR)
    assert debian_archive.mirrors() == (debian_archive.DEFAULT_MIRROR,)
    monkeypatch.setattr(debian_archive, "system_mirror", lambda: "http://near.example/debian")
    assert debian_archive.mirrors() == ("http://near.example/debian", debian_archive.DEFAULT_MIRROR)
    monkeypatch.setenv(debian_archive.MIRROR_VARIABLE, "http://named.example/debian/")
    assert debian_archive.mirrors() == ("http://named.example/debian",)
