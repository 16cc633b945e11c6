# SPDX-License-Identifier: GPL-2.0-or-later
"""What compiles for the guests: this machine's gcc, or Debian's cross compiler, unpacked.

    tools = compilers(cache)
    run_program([tools.strip, ...], env=tools.environment(), ...)

Nothing is installed: gcc finds its parts by where it lies itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.arch import GUEST, HOST
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.compiler import version_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.run import build_environment, find_program, search_path

#: The suite whose cross compiler is taken, and the version of it.
_SUITE: Final = "bookworm"
_GCC: Final = 12
_BUILD: Final = 1  # changes when what is done below changes


@dataclass(frozen=True, slots=True)
class Compilers:
    """gcc and its binutils.  ``version``: what they are, a part of all keys."""

    gcc: str
    #: What stands in front of the names of all the others.
    prefix: str
    version: str
    folder: Path | None = None

    @property
    def strip(self) -> str:
        """The program that removes symbols."""
        return "strip" if self.folder is None else str(self.folder / "usr" / "bin" / f"{self.prefix}strip")

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian's packages with what kbuild calls beside the compiler, for a suite's folder of programs."""
        return () if self.folder is None else (f"binutils-{_package_name()}",)

    @property
    def make_words(self) -> tuple[str, ...]:
        """What make is told for the guest's programs."""
        return () if self.folder is None else (f"CC={self.gcc}", f"AR={self.prefix}ar")

    @property
    def kernel_words(self) -> tuple[str, ...]:
        """What kbuild is told, beside the compiler."""
        if self.folder is None:
            return ()
        return (f"ARCH={GUEST.kernel.source}", f"CROSS_COMPILE={self.prefix}")

    def environment(self) -> dict[str, str]:
        """For whatever calls one of them."""
        if self.folder is None:
            return build_environment()
        usr = self.folder / "usr"
        return build_environment(
            PATH=os.pathsep.join([str(usr / "bin"), search_path()]),
            # Of the binutils: gcc's own libraries are those of the machine's gcc.
            LD_LIBRARY_PATH=str(usr / "lib" / HOST.multiarch),
        )


def _package_name() -> str:
    return GUEST.multiarch.replace("_", "-")


def compilers(cache: Cache) -> Compilers:
    """What compiles for :data:`harness.arch.GUEST`, fetched if need be."""
    if GUEST is HOST:
        return Compilers("gcc", "", version_of(cache, str(find_program("gcc"))))
    name, debian = _package_name(), GUEST.debian
    pool = DebianArchive(cache, _SUITE, HOST)
    packages = pool.packages(
        [
            f"binutils-{name}",
            f"cpp-{_GCC}-{name}",
            f"gcc-{_GCC}-{name}",
            f"libc6-{debian}-cross",
            f"libc6-dev-{debian}-cross",
            f"libgcc-{_GCC}-dev-{debian}-cross",
            f"libgcc-s1-{debian}-cross",
            f"linux-libc-dev-{debian}-cross",
        ]
    )
    key = key_of(packages=[package.sha256 for package in packages], build=_BUILD)

    def build(folder: Path) -> None:
        with cache.events.step("cross compiler", architecture=GUEST.name):
            pool.unpack(packages, folder)

    what = f"the cross compiler for {GUEST.name}"
    folder = cache.get("cross", key, build, what=what, space=300 * MIB)
    prefix = f"{GUEST.multiarch}-"
    return Compilers(f"{prefix}gcc-{_GCC}", prefix, key, folder)
