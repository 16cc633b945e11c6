# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes and reads "newc" cpio archives, the form in which a kernel takes its first file system.

Written here rather than by the cpio program: device nodes and owners need no
root this way, and the same entries give the same bytes (no times, no inode
numbers of this machine), so that an image's digest says what is in it.

    entries = [directory("/root", 0o700), file("/root/.ssh/authorized_keys", key, 0o600)]
    write_cpio(path, entries)

The kernel unpacks several archives one after the other: a file that is in a
later one replaces the earlier.  A run's own keys are such a later archive
(:func:`concatenate`).
"""

from __future__ import annotations

import dataclasses
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
# The kernel looks for the next archive at a multiple of four; cpio pads to a block.
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class CpioEntry:
    """One member of an archive.  ``mode`` has the type in it, as in ``st_mode``."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    links: int = 1

    @property
    def path(self) -> str:
        """The name inside the archive: no leading slash."""
        return self.name.lstrip("/") or "."


def directory(name: str, mode: int = 0o755) -> CpioEntry:
    """A directory."""
    return CpioEntry(name, stat.S_IFDIR | mode, links=2)


def file(name: str, data: bytes, mode: int = 0o644) -> CpioEntry:
    """A plain file."""
    return CpioEntry(name, stat.S_IFREG | mode, data)


def symlink(name: str, target: str) -> CpioEntry:
    """A symbolic link."""
    return CpioEntry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> CpioEntry:
    """A character device, such as the console."""
    return CpioEntry(name, stat.S_IFCHR | mode, device=(major, minor))


def with_parents(entries: Iterable[CpioEntry]) -> list[CpioEntry]:
    """The entries with the directories that they need, each before what is in it.

    The kernel does not make a missing directory; it drops the file, silently.
    """
    found = {entry.path: entry for entry in entries}
    for path in list(found):
        for parent in PurePosixPath(path).parents:
            found.setdefault(str(parent), directory(str(parent)))
    found.pop(".", None)
    return [found[path] for path in sorted(found, key=lambda path: PurePosixPath(path).parts)]


def write_cpio(target: Path | IO[bytes], entries: Iterable[CpioEntry]) -> None:
    """Write an archive; all files belong to root."""
    if isinstance(target, Path):
        with target.open("wb") as out:
            write_cpio(out, entries)
        return
    size = 0
    for number, entry in enumerate(entries, 1):
        size += _write_entry(target, entry, number)
    size += _write_entry(target, CpioEntry(_TRAILER, 0), 0)
    target.write(bytes(-size % _BLOCK))


def concatenate(target: Path, archives: Sequence[Path]) -> None:
    """Several archives as one file; what is in a later one wins."""
    with target.open("wb") as out:
        for archive in archives:
            with archive.open("rb") as part:
                shutil.copyfileobj(part, out, 1 << 20)
            out.write(bytes(-out.tell() % 4))


def read_cpio(data: bytes) -> Iterator[CpioEntry]:
    """The members of an archive, or of several one after the other."""
    at = 0
    while at < len(data):
        if data[at : at + 1] == b"\0":  # padding between archives
            at += 1
            continue
        if data[at : at + 6] != _MAGIC:
            raise ValueError(f"no cpio header at byte {at}")
        if len(data) < at + 110:
            raise ValueError("the archive ends inside a header")
        field = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at = at + 110
        name = data[name_at : name_at + field[11] - 1].decode()
        data_at = name_at + field[11] + _pad(110 + field[11])
        end = data_at + field[6]
        if end > len(data):
            raise ValueError(f"the archive ends inside {name}")
        if name != _TRAILER:
            yield CpioEntry(name, field[1], data[data_at:end], (field[9], field[10]), field[4])
        at = end + _pad(field[6])


def _pad(length: int) -> int:
    return -length % 4


def _write_entry(out: IO[bytes], entry: CpioEntry, inode: int) -> int:
    name = entry.path.encode() + b"\0"
    fields = (
        inode,
        entry.mode,
        0,  # owner
        0,  # group
        entry.links,
        0,  # time
        len(entry.data),
        0,  # the archive's own device
        0,
        *entry.device,
        len(name),
        0,  # checksum: unused in this form
    )
    header = _MAGIC + b"".join(b"%08X" % value for value in fields)
    record = header + name + bytes(_pad(len(header) + len(name))) + entry.data + bytes(_pad(len(entry.data)))
    out.write(record)
    return len(record)
