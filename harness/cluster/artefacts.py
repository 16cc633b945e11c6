# SPDX-License-Identifier: GPL-2.0-or-later
"""A run folder as bytes: the small files whole, and no more than was asked for.

What is left out is named in a file ``LEFT-OUT`` of the folder that comes back.  The smallest files go
first, and ``result.json`` before all: a picture of memory must not push out the verdict.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from harness.errors import InputError, MachineryError
from harness.report.folder import RUN_RESULT
from harness.units import human_size

NOT_BROUGHT: Final = "LEFT-OUT"
#: Bytes of one run's files, if nothing else is asked for.
DEFAULT_MOST: Final = 64 << 20
#: However small the limit: without these there is no verdict to look at.
_ALWAYS: Final = (RUN_RESULT, "scenario.yaml", "INCOMPLETE", "events.jsonl")


def pack_run(folder: Path, most: int) -> bytes:
    """The files of a folder, compressed; those that do not fit into ``most`` bytes are left out by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files.sort(key=lambda path: (path.name not in _ALWAYS, path.stat().st_size, path))
    left, out = most, []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3, format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            if name not in _ALWAYS:
                if size > left:
                    out.append(f"{name}  {human_size(size)}")
                    continue
                left -= size
            archive.add(path, name, recursive=False, filter=_plain)
        if out:
            _add_text(archive, NOT_BROUGHT, "\n".join((f"Larger than {human_size(most)} in all:", *out, "")))
    return buffer.getvalue()


def unpack_run(data: bytes, folder: Path) -> None:
    """Make a new folder of it.

    Raises :class:`MachineryError` for what is no such archive, or would write anywhere else.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from error
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isreg() or name.is_absolute() or ".." in name.parts:
                    raise MachineryError(f"a worker sent {member.name!r}, which is no file of a run folder")
                # By hand: nothing but files is made, so no name can lead through a link.
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                reading = archive.extractfile(member)
                assert reading is not None
                with reading, target.open("xb") as writing:
                    shutil.copyfileobj(reading, writing, 1 << 20)
                os.utime(target, (member.mtime, member.mtime))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise MachineryError(f"a worker's run folder cannot be read: {error}") from error


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o644
    return member


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
