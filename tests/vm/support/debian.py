# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and tools of Debian suites, for tests of what a walk finds in other kernels."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.toolchain import Toolchain, cpio
from harness.toolchain.cache import key_of
from harness.toolchain.debian_archive import DebianArchive, Package
from harness.toolchain.kernel import read_module
from harness.toolchain.run import run_program

_KERNEL = "linux-image-cloud-amd64"
_PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
_MAKEDUMPFILE = ("makedumpfile", "libdw1", "libelf1", "liblzo2-2", "zlib1g", "libbz2-1.0", "liblzma5")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")


@dataclass(frozen=True)
class SuiteKernel:
    """A suite's cloud kernel, unpacked."""

    vmlinuz: Path
    fw_cfg: Path | None
    """The module by which a kernel tells QEMU where its VMCOREINFO is, where it is a module."""


def suite_kernel(toolchain: Toolchain, suite: str) -> SuiteKernel:
    """The kernel of a Debian suite.  How it is cut into packages is the suite's business."""
    pool = DebianArchive(toolchain.cache, suite)
    found: dict[str, Package] = {}
    wanted = [_KERNEL]
    while wanted:
        for package in pool.packages(wanted):
            found[package.name] = package
        names = {
            name.removesuffix("-unsigned")
            for package in found.values()
            for name in package.depends
            if name.startswith(_PARTS)
        }
        wanted = sorted(names - found.keys())
    packages = [found[name] for name in sorted(found)]
    folder = toolchain.cache.get(
        "walk-kernel",
        key_of(packages=[package.sha256 for package in packages]),
        lambda folder: pool.unpack(packages, folder),
        what=f"the kernel of Debian {suite}",
    )
    vmlinuz = next(path for path in sorted(folder.rglob("vmlinuz*")) if path.is_file())
    return SuiteKernel(vmlinuz, next(iter(sorted(folder.rglob("qemu_fw_cfg.ko*"))), None))


def quiet_initrd(kernel: SuiteKernel, folder: Path) -> Path:
    """An initramfs that fragments memory and does nothing more."""
    program, initrd = folder / "quiet", folder / "quiet.cpio"
    source = Path(__file__).with_name("quiet.c")
    run_program(
        ["gcc", "-Os", "-static", "-s", "-o", program, source], what="compile the guest's program", cwd=folder
    )
    entries = [cpio.file("/init", program.read_bytes(), 0o755), cpio.character_device("/dev/console", 5, 1)]
    if kernel.fw_cfg is not None:
        entries.append(cpio.file("/qemu_fw_cfg.ko", read_module(kernel.fw_cfg)))
    cpio.write_cpio(initrd, cpio.with_parents(entries))
    return initrd


class Makedumpfile:
    """makedumpfile: another program that finds free pages from outside, and shares nothing with ours."""

    def __init__(self, toolchain: Toolchain, suite: str) -> None:
        pool = DebianArchive(toolchain.cache, suite)
        packages = pool.packages(_MAKEDUMPFILE)
        self._root = toolchain.cache.get(
            "makedumpfile",
            key_of(packages=[package.sha256 for package in packages]),
            lambda folder: pool.unpack(packages, folder),
            what="makedumpfile",
        )

    def excluded(self, dump: Path, folder: Path) -> npt.NDArray[np.bool_]:
        """The frames that ``-d 16`` leaves out of QEMU's ELF dump, which is repaired first."""
        _move_program_headers(dump)
        filtered = folder / "filtered"
        libraries = os.pathsep.join(str(self._root / place) for place in _LIBRARIES)
        self._run(["-d", "16", str(dump), str(filtered)], libraries)
        return _left_out(filtered)

    def _run(self, arguments: Sequence[str], libraries: str) -> None:
        program = str(self._root / "usr" / "bin" / "makedumpfile")
        done = subprocess.run(
            [program, *arguments],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


_EHDR, _PHDR = 64, 56


def _move_program_headers(dump: Path) -> None:
    """Put the program headers where makedumpfile takes them to be: right after the ELF header.

    QEMU has section headers there, and says that the ELF header is 8 bytes long.
    """
    with dump.open("r+b") as file:
        header = bytearray(file.read(_EHDR))
        (place,) = struct.unpack_from("<Q", header, 32)
        (count,) = struct.unpack_from("<H", header, 56)
        file.seek(place)
        programs = file.read(_PHDR * count)
        struct.pack_into("<QQIHHHHHH", header, 32, _EHDR, 0, 0, _EHDR, _PHDR, count, 0, 0, 0)
        file.seek(0)
        file.write(header + programs)


def _left_out(filtered: Path) -> npt.NDArray[np.bool_]:
    """What the first bitmap of a kdump file has (memory), and the second has not (kept)."""
    with filtered.open("rb") as file:
        header = file.read(4096)
        assert header.startswith(b"KDUMP   ")
        # struct disk_dump_header: signature, version, new_utsname, timestamp, then this.
        _, block, sub_blocks, bitmap_blocks, frames = struct.unpack_from(
            "<IiiII", header, 8 + 4 + 6 * 65 + 6 + 16
        )
        file.seek(block * (1 + sub_blocks))
        bits = np.unpackbits(
            np.frombuffer(file.read(block * bitmap_blocks), dtype=np.uint8), bitorder="little"
        )
    memory, kept = bits[: len(bits) // 2], bits[len(bits) // 2 :]
    return memory[:frames].astype(np.bool_) & ~kept[:frames].astype(np.bool_)
