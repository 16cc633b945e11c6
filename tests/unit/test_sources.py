# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the sources that are not Python are found, in a checkout and in what a wheel installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.toolchain import sources


def installed(place: Path, *, below: str) -> Path:
    """A package folder with the three folders somewhere around it."""
    package = place / "harness"
    for name in sources.FOLDERS:
        (package / below / name).mkdir(parents=True)
    (package / "part.py").touch()
    return package


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As a wheel installs it."""
    folder = installed(tmp_path, below="_sources")
    monkeypatch.setattr(sources, "package_folder", lambda: folder)
    return folder


def test_in_a_checkout_they_are_the_checkouts_own(repository: Path) -> None:
    assert sources.checkout() == sources.sources() == sources.installation() == repository


def test_a_wheel_carries_them(package: Path) -> None:
    assert sources.checkout() is None
    assert sources.sources() == package / "_sources"
    assert sources.installation() in sources.sources().parents


def test_the_checkouts_own_go_before_a_carried_copy(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(tmp_path, below="..")
    assert sources.sources() == tmp_path


def test_where_there_are_none_it_says_so(package: Path) -> None:
    (package / "_sources" / "vm-images").rmdir()
    with pytest.raises(MachineryError, match="folder vm-images is neither"):
        sources.sources()


def test_what_a_wheel_carries_is_none_of_the_packages_own_files(package: Path) -> None:
    # Else what a campaign knows of a checkout's runs would not count for a wheel's.
    (package / "_sources" / "vm-images" / "image.yaml").touch()
    assert list(sources.python_files()) == [package / "part.py"]
