# SPDX-License-Identifier: GPL-2.0-or-later
"""The archive with a program of the user's in it, to be unpacked over the guest's image.

The program is not trusted, and not run here: only the head of its file is looked at.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from harness.arch import GUEST
from harness.errors import InputError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, file_digest, key_of

#: Where it is in the guest; see vm-images/guest/workloads/user.c.
_PLACE: Final = "/user/program"
_LARGEST: Final = 256 * MIB

# <elf.h>
_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_ENTRY: Final = struct.Struct("<IIQQQQQQ")
_LITTLE_64: Final = (2, 1)
_RUNNABLE: Final = (2, 3)  # ET_EXEC, ET_DYN: one that may lie anywhere
_INTERPRETER: Final = 3  # PT_INTERP: it wants a loader, and so libraries
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
_MOST_ENTRIES: Final = 256


def demand_static_program(path: Path) -> None:
    """Raise :class:`InputError` for what a guest cannot start, or not without a loader and libraries."""
    try:
        if not path.is_file():
            raise InputError(f"there is no program {path}")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size or head[:4] != b"\x7fELF":
                raise InputError(f"{path} is no program: expected an ELF file")
            _, width, order, kind, machine, _, _, table, _, _, _, entry, entries, *_ = _HEADER.unpack(head)
            if (width, order) != _LITTLE_64 or kind not in _RUNNABLE or machine != _MACHINES[GUEST.name]:
                raise InputError(f"{path} is no program for a guest of {GUEST.name}")
            if entry != _ENTRY.size or not 0 < entries <= _MOST_ENTRIES:
                raise InputError(f"{path} is no program: its program headers make no sense")
            file.seek(table)
            headers = file.read(entry * entries)
    except OSError as error:
        raise InputError(f"cannot read the program {path}: {error.strerror}") from error
    if len(headers) < entry * entries:
        raise InputError(f"{path} is no program: it ends before its program headers")
    if any(fields[0] == _INTERPRETER for fields in _ENTRY.iter_unpack(headers)):
        raise InputError(
            f"{path} needs a loader and libraries, which the guest has not", hint="link it with -static"
        )
    if size > _LARGEST:
        raise InputError(
            f"{path} is larger than {_LARGEST // MIB} MiB, which a guest's initramfs has no room for"
        )


def build_program_archive(cache: Cache, path: Path) -> Path:
    """The archive with this program, made once for each content.  Raises as :func:`demand_static_program`."""
    demand_static_program(path)
    digest = file_digest(path)

    def build(folder: Path) -> None:
        content = cpio.file(_PLACE, path.read_bytes(), 0o755)
        cpio.write_cpio(folder / "program.cpio", cpio.with_parents([content]))

    key = key_of(program=digest, place=_PLACE)
    return (
        cache.get("user-program", key, build, what=f"the archive of {path}", space=2 * _LARGEST)
        / "program.cpio"
    )
