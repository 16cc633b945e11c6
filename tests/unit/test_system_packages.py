# SPDX-License-Identifier: GPL-2.0-or-later
"""What the distribution has to give, under the names of each distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.toolchain import system_packages
from harness.toolchain.system_packages import MANAGERS, how_to_install, manager_of, names_for

APT, DNF, ZYPPER, PACMAN = MANAGERS


def use(monkeypatch: pytest.MonkeyPatch, manager: system_packages.PackageManager | None) -> None:
    monkeypatch.setattr(system_packages, "this_manager", lambda: manager)


def test_each_is_listed_with_what_shows_it_and_its_names() -> None:
    listed = {package.name: package for package in system_packages.system_packages()}
    assert listed["gcc"].proof == "program:gcc"
    assert listed["libvirt-dev"].proof == "library:libvirt"
    for package in listed.values():
        assert package.proof.split(":")[0] in ("program", "library", "-"), package
        assert len(package.columns) == 5, package
    assert [listed["libvirt-dev"].called(manager) for manager in MANAGERS] == [
        "libvirt-dev",
        "libvirt-devel",
        "libvirt-devel",
        "libvirt",
    ]


def test_a_name_that_several_have_is_said_once() -> None:
    assert names_for(["libvirt-dev", "libvirt-clients", "mmdebstrap", "gcc"], PACMAN) == ["libvirt", "gcc"]
    assert names_for(["clang"], DNF) == ["clang"]


@pytest.mark.parametrize(
    ("said", "manager"),
    [
        ({"ID": "debian"}, APT),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, APT),
        ({"ID": "fedora"}, DNF),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, DNF),
        ({"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"}, ZYPPER),
        ({"ID": "arch"}, PACMAN),
        ({"ID": "nixos"}, None),
        ({}, None),
    ],
)
def test_the_manager_is_that_of_the_system(
    said: dict[str, str], manager: system_packages.PackageManager | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert manager_of(said) == manager


def test_else_the_one_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pacman").write_text("")
    (tmp_path / "pacman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manager_of({"ID": "other"}) == PACMAN
    # Debian has pacman as a package.
    assert manager_of({"ID": "debian"}) == APT


def test_advice_in_a_checkout(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, APT)
    monkeypatch.chdir(repository)
    assert how_to_install("gcc") == "install gcc, or let ci/setup do it"
    monkeypatch.chdir(tmp_path)
    assert how_to_install("gcc") == f"install gcc, or let {repository}/ci/setup do it"
    assert how_to_install("clang") == "install clang"


def test_advice_where_there_is_no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, APT)
    monkeypatch.setattr(system_packages, "checkout", lambda: None)
    advice = how_to_install("gcc", "make")
    assert advice == "install gcc make: apt-get install --no-install-recommends gcc make"


def test_advice_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, DNF)
    assert (
        how_to_install("dwarves", "libc6-dev")
        == "install dwarves glibc-devel: dnf install dwarves glibc-devel"
    )
    assert how_to_install("mmdebstrap") == "what Debian has as mmdebstrap is no package of this system"
    use(monkeypatch, None)
    assert how_to_install("gcc") == "install gcc (as Debian calls it)"
