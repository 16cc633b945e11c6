# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk as distributions publish them for clouds: its own kernel and boot loader, systemd, cloud-init.

It is made of Debian's packages, once, and kept in the cache.  Nothing in it knows of this testbed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from harness.toolchain import Toolchain
from harness.toolchain.cache import MIB, file_digest, key_of
from harness.toolchain.debian_archive import DebianArchive, mirrors
from harness.toolchain.run import build_environment, run_program

_SUITE: Final = "bookworm"
_PACKAGES: Final = (
    "cloud-init",
    "dbus",
    "grub-common",
    "grub-pc-bin",
    "initramfs-tools",
    "iproute2",
    "linux-image-cloud-amd64",
    "netplan.io",
    "openssh-server",
    "systemd-sysv",
    "udev",
)
_HOOK: Final = Path(__file__).with_name("cloud_image_hook.sh")
_SECTOR: Final = 512
#: Where the only partition begins; the loader is in front of it.
_FIRST: Final = 2048
_ROOT_BYTES: Final = 3 << 30
_LINUX: Final = 0x83


def cloud_image(toolchain: Toolchain) -> Path:
    """The disk, raw; nobody writes to it."""
    packages = DebianArchive(toolchain.cache, _SUITE).packages(_PACKAGES)
    key = key_of(packages=[package.sha256 for package in packages], hook=file_digest(_HOOK), build=1)
    folder = toolchain.cache.get("cloud-image", key, _make, what="a cloud image", space=4096 * MIB)
    return folder / "disk.raw"


def _make(folder: Path) -> None:
    work = folder / "work"
    work.mkdir()
    work.chmod(0o755)  # a user namespace may enter
    apart = ("unshare", "--mount", "--propagation", "private", "--") if os.geteuid() == 0 else ()
    command = [
        *apart,
        *("mmdebstrap", "--quiet", "--variant=minbase", "--format=null"),
        f"--include={','.join(_PACKAGES)}",
        f"--customize-hook={_HOOK}",
        *(_SUITE, "-", mirrors()[0]),
    ]
    env = build_environment(FREEPAGE_OUT=str(work), FREEPAGE_BYTES=str(_ROOT_BYTES), TMPDIR=str(work))
    run_program(command, what="make a cloud image", cwd=folder, env=env)
    _put_together(work, folder / "disk.raw")
    shutil.rmtree(work)


def _put_together(work: Path, disk: Path) -> None:
    """A partition table of one partition, with GRUB in front of it as ``grub-install`` would put it."""
    loader, core, root = (work / name for name in ("boot.img", "core.img", "root.img"))
    assert core.stat().st_size <= (_FIRST - 1) * _SECTOR
    # The file system moves up by the sectors in front of it: a hole that is inserted.
    with root.open("rb") as reading, disk.open("wb") as file:
        os.truncate(file.fileno(), _FIRST * _SECTOR + _ROOT_BYTES)
        at = 0
        while True:
            try:
                begin = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(reading.fileno(), begin, os.SEEK_HOLE)
            for place in range(begin, at, MIB):
                data = os.pread(reading.fileno(), min(MIB, at - place), place)
                os.pwrite(file.fileno(), data, _FIRST * _SECTOR + place)
        sector = bytearray(loader.read_bytes()[:_SECTOR])
        entry = bytes([0x80, 0xFE, 0xFF, 0xFF, _LINUX, 0xFE, 0xFF, 0xFF])
        entry += _FIRST.to_bytes(4, "little") + (_ROOT_BYTES // _SECTOR).to_bytes(4, "little")
        sector[446:510] = entry + bytes(48)
        sector[510:512] = b"\x55\xaa"
        os.pwrite(file.fileno(), bytes(sector), 0)
        os.pwrite(file.fileno(), core.read_bytes(), _SECTOR)
