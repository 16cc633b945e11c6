# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as distributions have them: their own kernel and boot loader, systemd; and cloud-init, or ssh.

Each is made of Debian's packages, once, and kept in the cache.  Nothing in it knows of this testbed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from harness.toolchain import Toolchain
from harness.toolchain.cache import MIB, file_digest, key_of
from harness.toolchain.debian_archive import DebianArchive, mirrors
from harness.toolchain.run import build_environment, run_program

_SUITE: Final = "bookworm"
_EACH: Final = (
    "dbus",
    "grub-common",
    "grub-pc-bin",
    "initramfs-tools",
    "iproute2",
    "linux-image-cloud-amd64",
    "openssh-server",
    "systemd-sysv",
    "udev",
)
_CLOUD: Final = tuple(sorted((*_EACH, "cloud-init", "netplan.io")))
_SERVER: Final = tuple(sorted((*_EACH, "sudo")))
_HOOK: Final = Path(__file__).with_name("cloud_image_hook.sh")
_SERVER_HOOK: Final = Path(__file__).with_name("server_image_hook.sh")
_SECTOR: Final = 512
#: Where the only partition begins; the loader is in front of it.
_FIRST: Final = 2048
_ROOT_BYTES: Final = 3 << 30
_LINUX: Final = 0x83


def cloud_image(toolchain: Toolchain) -> Path:
    """The disk, raw; nobody writes to it."""
    packages = DebianArchive(toolchain.cache, _SUITE).packages(_CLOUD)
    key = key_of(packages=[package.sha256 for package in packages], hook=file_digest(_HOOK), build=1)
    make = partial(_make, packages=_CLOUD, hooks=(_HOOK,))
    folder = toolchain.cache.get("cloud-image", key, make, what="a cloud image", space=4096 * MIB)
    return folder / "disk.raw"


@dataclass(frozen=True)
class ServerImage:
    """A disk without cloud-init, and what lets somebody in: root, and a user who has sudo.

    ``careful`` has a sudo that asks for the password.
    """

    disk: Path
    key: Path
    password: Path
    host_keys: Path
    users: tuple[str, str] = ("root", "tester")
    careful: str = "careful"


def server_image(toolchain: Toolchain) -> ServerImage:
    """The disk, raw; nobody writes to it."""
    packages = DebianArchive(toolchain.cache, _SUITE).packages(_SERVER)
    hooks = (_SERVER_HOOK, _HOOK)
    digests = [file_digest(hook) for hook in hooks]
    key = key_of(packages=[package.sha256 for package in packages], hooks=digests, build=1)
    make = partial(_make, packages=_SERVER, hooks=hooks, kept=("key", "password", "host_keys"))
    folder = toolchain.cache.get("server-image", key, make, what="a server's disk", space=4096 * MIB)
    return ServerImage(folder / "disk.raw", folder / "key", folder / "password", folder / "host_keys")


def _make(folder: Path, packages: Sequence[str], hooks: Sequence[Path], kept: Sequence[str] = ()) -> None:
    work = folder / "work"
    work.mkdir()
    work.chmod(0o755)  # a user namespace may enter
    apart = ("unshare", "--mount", "--propagation", "private", "--") if os.geteuid() == 0 else ()
    command = [
        *apart,
        *("mmdebstrap", "--quiet", "--variant=minbase", "--format=null"),
        f"--include={','.join(packages)}",
        *(f"--customize-hook={hook}" for hook in hooks),
        *(_SUITE, "-", mirrors()[0]),
    ]
    env = build_environment(FREEPAGE_OUT=str(work), FREEPAGE_BYTES=str(_ROOT_BYTES), TMPDIR=str(work))
    run_program(command, what="make a cloud image", cwd=folder, env=env)
    _put_together(work, folder / "disk.raw")
    for name in kept:
        (work / name).rename(folder / name)
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
