# SPDX-License-Identifier: GPL-2.0-or-later
"""UEFI firmware for a guest: OVMF, out of Debian's package."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.source import SUITE

_PACKAGE: Final = "ovmf"
_FOLDER: Final = "usr/share/OVMF"
#: The firmware, the one that protects its variables by SMM, and variables for either.
CODE, SECURE_CODE, VARIABLES = "OVMF_CODE_4M.fd", "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.fd"


@dataclass(frozen=True, slots=True)
class GuestFirmware:
    """Firmware that is not QEMU's own choice.

    ``variables``: what the flash with its variables holds at first; None: it has none, and is a plain
    image.  ``smm``: it guards them by system management mode.
    """

    code: Path
    variables: Path | None = None
    smm: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """What the hosts read."""
        return (self.code,) if self.variables is None else (self.code, self.variables)


def ovmf(cache: Cache, *, smm: bool) -> GuestFirmware:
    """Debian's OVMF.  Raises :class:`MachineryError` if the package cannot be got, or has not what it had."""
    pool = DebianArchive(cache, SUITE)
    packages = pool.packages((_PACKAGE,))
    key = key_of(packages=[package.sha256 for package in packages], form=1)

    def build(folder: Path) -> None:
        with cache.events.step("ovmf"):
            unpacked = folder / "unpacked"
            unpacked.mkdir()
            pool.unpack(packages, unpacked)
            for name in (CODE, SECURE_CODE, VARIABLES):
                file = unpacked / _FOLDER / name
                if not file.exists():
                    raise MachineryError(f"Debian's package {_PACKAGE} has no {_FOLDER}/{name}")
                shutil.copyfile(file, folder / name)
            shutil.rmtree(unpacked)

    place = cache.get("ovmf", key, build, what="OVMF", space=100 * MIB)
    return GuestFirmware(place / (SECURE_CODE if smm else CODE), place / VARIABLES, smm)
