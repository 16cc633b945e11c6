# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what apt prints, choosing mirrors, and remembering what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.events import EventStream
from harness.toolchain import apt
from harness.toolchain.apt import Apt, AptSource, first_alternatives, stanzas, system_mirror
from harness.toolchain.cache import Cache

SHOW = """\
Package: dropbear-bin
Version: 2022.83-1
Depends: libc6 (>= 2.36), libcrypt1 (>= 1:4.1.0) | libxcrypt, libtommath1:any
Description: lightweight SSH2 server
 and client
SHA256: aa

Package: busybox-static
Version: 1:1.35.0-4
SHA256: bb
"""

SHOWSRC = """\
Package: qemu
Version: 1:10.0.2+ds-2+deb13u1
Checksums-Sha256:
 11 100 qemu_10.0.2+ds-2+deb13u1.dsc
 22 200 qemu_10.0.2+ds.orig.tar.xz
"""


def test_stanzas() -> None:
    one, two = stanzas(SHOW)
    assert one["Package"] == "dropbear-bin"
    assert one["Description"] == "lightweight SSH2 server\nand client"
    assert two["SHA256"] == "bb"


def test_first_alternatives() -> None:
    depends = stanzas(SHOW)[0]["Depends"]
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
    assert AptSource("qemu", version, ()).upstream == upstream


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
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(apt, "system_mirror", lambda: apt.DEFAULT_MIRROR)
    assert apt.mirrors() == (apt.DEFAULT_MIRROR,)
    monkeypatch.setattr(apt, "system_mirror", lambda: "http://near.example/debian")
    assert apt.mirrors() == ("http://near.example/debian", apt.DEFAULT_MIRROR)
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://named.example/debian/")
    assert apt.mirrors() == ("http://named.example/debian",)


def test_asked_once_then_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(_self: Apt, *words: str, what: str, cwd: Path | None = None) -> str:
        asked.append(words)
        return SHOWSRC if "showsrc" in words else SHOW

    monkeypatch.setattr(Apt, "_apt", answer)
    monkeypatch.setattr(Apt, "_update", lambda _self: None)
    suite = Apt(Cache(tmp_path, EventStream()), "somesuite")
    packages = suite.packages(["dropbear-bin", "busybox-static"])
    assert [package.sha256 for package in packages] == ["aa", "bb"]
    source = suite.source("qemu")
    assert source.dsc == "qemu_10.0.2+ds-2+deb13u1.dsc"
    assert len(asked) == 2
    again = Apt(Cache(tmp_path, EventStream()), "somesuite")
    assert again.packages(["busybox-static", "dropbear-bin"]) == packages[::-1]
    assert again.source("qemu") == source
    assert len(asked) == 2
    again.forget()
    suite.source("qemu")
    assert len(asked) == 3
