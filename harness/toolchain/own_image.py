# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk image of the user's, looked at before anybody relies on it; and the programs for its guest."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harness.errors import InputError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, key_of, tree_digest
from harness.toolchain.compiler import check_unchanged
from harness.toolchain.cross import compilers
from harness.toolchain.image import program_sources, programs_of
from harness.toolchain.recipe import Recipe

_BUILD: Final = 1  # changes when what is done below changes

# docs/interop/qcow2.rst of QEMU: magic, version, place and length of the backing file's name; from
# version 3 on, incompatible features, one of which says that the data is in another file.
_MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQI")
_FEATURES: Final = struct.Struct(">Q")
_FEATURES_AT: Final = 72
_DATA_ELSEWHERE: Final = 1 << 2
_OTHERS: Final = {
    b"KDMV": "vmdk",
    b"conectix": "vpc",
    b"vhdxfile": "vhdx",
    b"# Disk DescriptorFile": "vmdk",
    b"<<< Oracle VM VirtualBox Disk Image": "vdi",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True, slots=True)
class OwnImage:
    """The image, and its format."""

    path: Path
    kind: Literal["raw", "qcow2"]


def read_own_image(path: Path) -> OwnImage:
    """Look at what QEMU will open.

    Raises :class:`harness.errors.InputError` for a file that is none, and for one that names other
    files: whoever made it would choose which files of this machine the guest reads.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            f"the file {path} cannot be read: {error.strerror}",
            hint="--set guest.image=PATH names a disk image, raw or qcow2, with cloud-init in it",
        ) from error
    if head.startswith(_MAGIC):
        _demand_whole(path, head)
        return OwnImage(path.absolute(), "qcow2")
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            raise InputError(
                f"{path} is in the format {name}, expected a raw disk or qcow2",
                hint=f"qemu-img convert -O qcow2 {path} NEW.qcow2, once it is unpacked",
            )
    if size < MIB or size % 512 or head[510:512] != b"\x55\xaa":
        raise InputError(f"{path} is no qcow2, and no disk: it has no partition table")
    return OwnImage(path.absolute(), "raw")


def _demand_whole(path: Path, head: bytes) -> None:
    if len(head) < _FEATURES_AT + _FEATURES.size:
        raise InputError(f"{path} ends within its qcow2 header")
    _, version, backing, _ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise InputError(f"{path} is a qcow2 of version {version}, expected 2 or 3")
    (features,) = _FEATURES.unpack_from(head, _FEATURES_AT) if version > 2 else (0,)
    if backing or features & _DATA_ELSEWHERE:
        raise InputError(
            f"{path} is a qcow2 whose data is in another file as well",
            hint=f"qemu-img convert -O qcow2 {path} NEW.qcow2 makes one of them",
        )


def build_guest_programs(cache: Cache, recipe: Recipe, sources: Path) -> Path:
    """A folder with the guest's programs, which run in any Linux of this architecture; without an init."""
    programs = {name: files for name, files in recipe.programs.items() if name != "/init"}
    own = program_sources(sources)
    digests = tree_digest(own, sources)
    tools = compilers(cache)
    key = key_of(build=_BUILD, programs=programs, sources=digests, compiler=tools.version)

    def build(folder: Path) -> None:
        with cache.events.step("guest programs"):
            work = folder / "work"
            work.mkdir()
            for entry in programs_of(programs, sources, work, tools):
                _install(folder, entry)
            shutil.rmtree(work)
            check_unchanged(digests, own, sources)

    return cache.get("programs", key, build, what="the guest's programs", space=50 * MIB)


def _install(folder: Path, entry: cpio.CpioEntry) -> None:
    program = folder / Path(entry.path).name
    program.write_bytes(entry.data)
    program.chmod(0o755)
