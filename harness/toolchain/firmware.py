# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware that the guest's machine needs, from Debian's packages, in one folder for ``-L``."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.arch import GUEST
from harness.errors import MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.source import SUITE

_PACKAGES = GUEST.board.firmware_packages
NEEDED = GUEST.board.firmware_files
_FOLDERS = ("usr/share/qemu", "usr/share/seabios")


def firmware(cache: Cache) -> tuple[Path, ...]:
    """The folders to name with ``-L``."""
    pool = DebianArchive(cache, SUITE)
    packages = pool.packages(_PACKAGES)
    key = key_of(packages=[package.sha256 for package in packages], form=1)

    def build(folder: Path) -> None:
        with cache.events.step("firmware"):
            unpacked = folder / "unpacked"
            unpacked.mkdir()
            pool.unpack(packages, unpacked)
            # One real folder: links between packages are absolute, and would lead out of here.
            for place in _FOLDERS:
                for file in (unpacked / place).glob("*"):
                    if file.suffix in (".bin", ".rom") and file.is_file() and not file.is_symlink():
                        shutil.copyfile(file, folder / file.name)
            shutil.rmtree(unpacked)
            lacking = [name for name in NEEDED if not (folder / name).exists()]
            if lacking:
                raise MachineryError(f"Debian's packages {', '.join(_PACKAGES)} have no {', '.join(lacking)}")

    return (cache.get("firmware", key, build, what="the firmware", space=100 * MIB),)
