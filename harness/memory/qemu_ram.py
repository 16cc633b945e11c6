# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAMBlocks of a QEMU on this machine: which are files, and what is in the others."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_MAPPING = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<mode>\S+) (?P<offset>[0-9a-f]+) \S+ "
    r"(?P<inode>\d+)\s*(?P<path>/.*)?"
)
#: How the kernel prints a file without a name.
_NAMELESS = "/memfd:"


class BlockPlace(Protocol):
    """A RAMBlock, and where its QEMU has it mapped."""

    @property
    def name(self) -> str:
        """QEMU's name of the block."""

    @property
    def used(self) -> int:
        """The used length in bytes."""

    @property
    def address(self) -> int:
        """Where the block begins in its QEMU's address space."""


@dataclass(frozen=True, slots=True)
class Backing:
    """A file that holds a RAMBlock, as seen by this process."""

    block: BlockPlace
    path: Path


def backings(pid: int, blocks: Iterable[BlockPlace], folder: Path) -> tuple[Backing, ...]:
    """Those RAMBlocks of a QEMU that are files: below ``folder``, without a name, or of both hosts."""
    mappings = _mappings(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace"))
    found = ((block, _file_of(pid, block, mappings, folder)) for block in blocks)
    return tuple(Backing(block, path) for block, path in found if path is not None)


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    offset: int
    inode: int
    path: str
    shared: bool


def _mappings(text: str) -> list[_Mapping]:
    found = []
    for line in text.splitlines():
        match = _MAPPING.match(line)
        if match and match["path"]:
            start, end, offset = (int(match[name], 16) for name in ("start", "end", "offset"))
            shared = match["mode"].endswith("s")
            found.append(_Mapping(start, end, offset, int(match["inode"]), match["path"], shared))
    return found


def _file_of(pid: int, block: BlockPlace, mappings: Iterable[_Mapping], folder: Path) -> Path | None:
    for mapping in mappings:
        # The whole block, from the file's beginning: nothing else is an image of it.
        if (
            mapping.start == block.address
            and mapping.offset == 0
            and mapping.end >= block.address + block.used
        ):
            if mapping.path.startswith(_NAMELESS):
                return _open_file(pid, mapping.inode)
            name = Path(mapping.path).name
            # The kernel prints the path as the QEMU's mount namespace has it; below
            # the memory folder the name of the file is what both have in common.
            for candidate in folder.rglob(name):
                return candidate
            return _known_by_inode(mapping)
    return None


def _known_by_inode(mapping: _Mapping) -> Path | None:
    """A shared file outside of the folder, if its path means the same to us."""
    path = Path(mapping.path)
    with contextlib.suppress(OSError):
        if mapping.shared and path.stat().st_ino == mapping.inode:
            return path
    return None


def _open_file(pid: int, inode: int) -> Path | None:
    """A path for a file that has no name: QEMU has it open, so ``/proc`` leads to it."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith(_NAMELESS) and entry.stat().st_ino == inode:
                return entry
    return None


def read_block(pid: int, block: BlockPlace) -> bytes:
    """The content of a RAMBlock that has no file, read from the QEMU's memory.

    Exact only while the guest stands still.
    """
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, block.used, block.address)
    finally:
        os.close(descriptor)
    if len(content) != block.used:
        raise OSError(f"only {len(content)} of {block.used} bytes could be read")
    return content
