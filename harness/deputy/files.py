# SPDX-License-Identifier: GPL-2.0-or-later
"""The run's own folder on this machine, and what is put into it and fetched from it."""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Any

#: Most bytes of a file in one answer.
PART = 1 << 22


class Folder:
    """``files``: what the harness brings; ``qemu``: QEMU's own, for its sockets and records.

    Others may pass through the folder, whose name nobody can guess, but not look
    into it: QEMU may run as another user.
    """

    def __init__(self, path: str, owner: int, group: int) -> None:
        self.path = path
        os.mkdir(path, 0o711)
        os.chmod(path, 0o711)  # whatever the umask  # noqa: S103
        for name, mode in (("files", 0o755), ("qemu", 0o700)):
            os.mkdir(os.path.join(path, name), mode)
            os.chmod(os.path.join(path, name), mode)
        if os.geteuid() == 0:
            os.chown(os.path.join(path, "qemu"), owner, group)

    def inside(self, name: str) -> str:
        """The path of a file of the run's; raises for one that is outside."""
        path = os.path.join(self.path, name)
        if os.path.commonpath([os.path.realpath(os.path.dirname(path)), self.path]) != self.path:
            raise ValueError(f"{name} is not in the run's folder")
        return path

    def put(self, name: str, part: bytes, *, first: bool, mode: int, sha256: str) -> None:
        """Write the next part of a file; with ``sha256`` it was the last, and the whole is checked."""
        path = self.inside(name)
        if first:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if first else os.O_APPEND)
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(part)
        if sha256:
            if digest_of(path) != sha256:
                raise ValueError(f"{name} did not arrive as it was sent")
            os.chmod(path, mode)

    def open_to_all(self, name: str) -> None:
        """Let QEMU connect to a socket that the ssh server has made for us alone."""
        os.chmod(self.inside(name), 0o666)  # noqa: S103 - in a folder that is QEMU's alone


def digest_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def fetch(path: str, offset: int) -> tuple[dict[str, Any], bytes]:
    """A part of a file, compressed, and the file's size."""
    with open(path, "rb") as file:
        file.seek(offset)
        part = file.read(PART)
        return {"bytes": len(part), "size": os.fstat(file.fileno()).st_size}, zlib.compress(part, 1)
