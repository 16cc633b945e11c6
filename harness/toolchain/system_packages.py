# SPDX-License-Identifier: GPL-2.0-or-later
"""What the project needs from the distribution, under the names that this machine's distribution has for it.

``ci/packages`` lists it by Debian's names, which are those used everywhere in the code.
"""

from __future__ import annotations

import functools
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.toolchain.sources import checkout, sources

#: The distribution's packages that a run or a build needs, and how to tell that each is there.
PACKAGE_LIST: Final = Path("ci", "packages")

_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class PackageManager:
    """What installs packages on a distribution and its kin; ``column``: of ci/packages."""

    program: str
    column: int
    install: str
    #: As /etc/os-release has them, in ID or ID_LIKE.
    systems: tuple[str, ...]


#: In the order in which a machine that does not say what it is is asked for them.
MANAGERS: Final = (
    PackageManager("apt-get", 0, "apt-get install --no-install-recommends", ("debian", "ubuntu")),
    PackageManager("dnf", 2, "dnf install", ("fedora", "rhel", "centos")),
    PackageManager("zypper", 3, "zypper install", ("suse", "opensuse")),
    PackageManager("pacman", 4, "pacman -S --needed", ("arch",)),
)


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """A line of ci/packages, by Debian's name."""

    name: str
    proof: str
    """``program:NAME``, ``library:NAME`` (for pkg-config), or ``-`` if nothing shows it."""
    columns: tuple[str, ...]

    def called(self, manager: PackageManager) -> str | None:
        """Its name for a manager of packages; None if that has nothing to install for it."""
        name = self.columns[manager.column]
        return None if name == _NOTHING else name


def system_packages() -> tuple[SystemPackage, ...]:
    """All lines of ci/packages, in their order."""
    lines = (sources() / PACKAGE_LIST).read_text("utf-8").splitlines()
    words = (tuple(line.split()) for line in lines if line.strip() and not line.startswith("#"))
    return tuple(SystemPackage(columns[0], columns[1], columns) for columns in words)


def this_manager() -> PackageManager | None:
    """The manager of packages that this machine's distribution has; None if it is none of ours."""
    try:
        said = platform.freedesktop_os_release()
    except OSError:
        said = {}
    return manager_of(said)


def manager_of(said: Mapping[str, str]) -> PackageManager | None:
    """The manager of a distribution that says this of itself in os-release; else the first that is there.

    A distribution may have the programs of another as packages, so what it says goes first.
    """
    words = f"{said.get('ID', '')} {said.get('ID_LIKE', '')}".lower().split()
    for word in words:
        for manager in MANAGERS:
            if any(word == system or word.startswith(f"{system}-") for system in manager.systems):
                return manager
    return next((manager for manager in MANAGERS if shutil.which(manager.program) is not None), None)


@functools.cache
def _by_name() -> Mapping[str, SystemPackage]:
    return {package.name: package for package in system_packages()}


def names_for(packages: Iterable[str], manager: PackageManager | None) -> list[str]:
    """What packages of these names of Debian's are called by a manager, each once, in this order.

    A package that ci/packages does not know is called the same everywhere.
    """
    found: dict[str, None] = {}
    for name in packages:
        known = _by_name().get(name)
        called = known.called(manager) if known is not None and manager is not None else name
        if called is not None:
            found[called] = None
    return list(found)


def how_to_install(*packages: str) -> str:
    """Advice that holds for this machine and this installation: only a checkout has ci/setup.

    ``packages`` are named as Debian names them.
    """
    manager = this_manager()
    names = " ".join(names_for(packages, manager))
    if not names:
        return f"what Debian has as {' '.join(packages)} is no package of this system"
    if manager is None:
        return f"install {names} (as Debian calls it)"
    root = checkout()
    if root is None or manager is not MANAGERS[0]:
        return f"install {names}: {manager.install} {names}"
    if not _by_name().keys() >= set(packages):
        return f"install {names}"
    setup = Path("ci/setup") if Path.cwd() == root else root / "ci" / "setup"
    return f"install {names}, or let {setup} do it"
