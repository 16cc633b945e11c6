# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU of a run on this machine, found in /proc, and its memory."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from .images import ImageFile

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)")


def command_of(pid: int) -> list[str]:
    """A process's command line; empty for one that is gone, or is nobody's program."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except OSError:
        return []
    return [os.fsdecode(word) for word in words]


def processes() -> Iterator[tuple[int, list[str]]]:
    """Every other process of this machine with its command line; what runs in a container is another's."""
    mine = os.stat("/proc/self/ns/net").st_ino
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                words = command_of(int(name))
                if words and os.stat(f"/proc/{name}/ns/net").st_ino == mine:
                    yield int(name), words


def find(guest: str, folder: str) -> list[int]:
    """The QEMUs of a run: they have its guest's name, and its folder in what they were told."""
    mark = re.compile(rf"guest={re.escape(guest)}(,|$)")
    return [
        pid
        for pid, words in processes()
        if any(mark.match(word) for word in words) and any(folder in word for word in words)
    ]


def memory(pid: int, blocks: list[tuple[str, int, int]]) -> dict[str, ImageFile]:
    """The RAMBlocks (name, address, used length) of a QEMU that are files, each opened.

    By what the process has open, and not by a path: a memfd has none, and a
    file's may be in another mount namespace.
    """
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        mappings = [match for match in map(_MAPPING.match, file) if match and int(match[5])]
    found = {}
    for name, address, used in blocks:
        for match in mappings:
            start, end, offset = (int(match[number], 16) for number in (1, 2, 3))
            # The whole block, from the file's beginning: nothing else is an image of it.
            if start == address and offset == 0 and end >= address + used:
                fd = _open(pid, match[4], int(match[5]))
                if fd is not None:
                    found[name] = ImageFile(fd, used, name)
    return found


def _open(pid: int, device: str, inode: int) -> int | None:
    """A descriptor of a file that a process has open, by device and inode."""
    major, minor = (int(part, 16) for part in device.split(":"))
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        with contextlib.suppress(OSError):
            state = os.stat(path)
            if state.st_ino == inode and state.st_dev == os.makedev(major, minor):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def anonymous(pid: int, name: str, address: int, used: int) -> ImageFile:
    """A RAMBlock that is no file, copied out of a QEMU that stands still."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(fd, used, address)
    finally:
        os.close(fd)
    if len(content) != used:
        raise OSError(f"only {len(content)} of {used} bytes could be read")
    return ImageFile.of(content, name)
