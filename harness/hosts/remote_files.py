# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of ours, brought into the run's own folder on another machine; and fetched from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.hosts.remote_deputy import DeputyClient, unpacked
from harness.toolchain.cache import file_digest

_PART: Final = 1 << 22

#: No log or record is fetched beyond this.
_MOST_FETCHED: Final = 1 << 30


def bring(deputy: DeputyClient, file: Path, folder: str) -> str:
    """Copy a file, or a folder of files, into the run's folder; its path there (relative)."""
    if not file.is_dir():
        name = f"files/{file_digest(file)[:16]}-{file.name}"
        _put(deputy, file, name)
        return name
    inside = f"files/{folder}-{file.name}"
    for entry in sorted(file.iterdir()):
        if entry.is_file():
            _put(deputy, entry, f"{inside}/{entry.name}")
    return inside


def _put(deputy: DeputyClient, file: Path, name: str) -> None:
    mode = 0o755 if os.access(file, os.X_OK) else 0o644
    digest, first = file_digest(file), True
    with file.open("rb") as content:
        part = content.read(_PART)
        while True:
            following = content.read(_PART)
            deputy.call(
                "put",
                part,
                purpose="files",
                name=name,
                first=first,
                mode=mode,
                sha256="" if following else digest,
            )
            if not following:
                return
            part, first = following, False


def fetch(deputy: DeputyClient, path: str, to: Path, *, purpose: str, most: int = _MOST_FETCHED) -> None:
    """Copy a file from there to here, replacing what is here.  Raises if there is none."""
    draft = to.with_name(f".{to.name}.part")
    with draft.open("wb") as file:
        while True:
            header, data = deputy.call("fetch", purpose=purpose, path=path, offset=file.tell())
            length = header.get("bytes")
            if not isinstance(length, int) or not 0 <= length <= _PART or file.tell() + length > most:
                raise MachineryError(f"the {deputy.name} sends too much of {path}")
            if not length:
                break
            file.write(unpacked(data, length))
    draft.replace(to)
