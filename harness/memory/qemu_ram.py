# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAMBlocks of a QEMU on this machine: which are files, and what is in the others.

A QEMU before 8.1 does not tell where it has a block that is mapped nowhere in its
guest.  It maps each block by itself, at a multiple of 2 MiB, with a guard page
behind it (``qemu_ram_mmap()``), so that one is found by its size, if nothing else
of that size is there (:func:`placed`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from harness.units import PAGE_SIZE

_MAPPING = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<mode>\S+) (?P<offset>[0-9a-f]+) \S+ "
    r"(?P<inode>\d+)\s*(?P<path>/.*)?"
)
#: QEMU's QEMU_VMALLOC_ALIGN (include/qemu/osdep.h).
_BLOCK_ALIGNMENT = 2 << 20
#: Of an entry of /proc/PID/pagemap: its bytes, and the bits that say that the page is in memory or in swap.
_ENTRY = 8
_THERE = np.uint64(3 << 62)
#: How the kernel prints a file without a name, and one that has none any more.  Shared anonymous memory is
#: printed as ``/dev/zero (deleted)``; its pages are in a file of the kernel's own as well.
_NAMELESS = "/memfd:"
_GONE = " (deleted)"


class BlockPlace(Protocol):
    """A RAMBlock, and where its QEMU has it mapped."""

    @property
    def name(self) -> str:
        """QEMU's name of the block."""

    @property
    def used(self) -> int:
        """The used length in bytes."""

    @property
    def total(self) -> int:
        """The length in bytes that it may grow to."""

    @property
    def address(self) -> int | None:
        """Where the block begins in its QEMU's address space; None: QEMU does not tell."""


@dataclass(frozen=True, slots=True)
class Backing:
    """A file that holds a RAMBlock, as seen by this process, and where in it the block begins."""

    block: BlockPlace
    path: Path
    base: int = 0


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A RAMBlock of which QEMU does not tell where it is, found all the same."""

    name: str
    used: int
    total: int
    address: int | None


def backings(pid: int, blocks: Iterable[BlockPlace], folder: Path) -> tuple[Backing, ...]:
    """Those RAMBlocks of a QEMU that are files: below ``folder``, without a name, or of both hosts.

    What QEMU has mapped for itself alone is none: the file does not hold what is written.
    """
    mappings = _mappings(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace"))
    found = []
    for block in blocks:
        mapping = next((one for one in mappings if _holds(one, block)), None)
        path = _file_of(pid, mapping, folder) if mapping is not None else None
        if mapping is not None and path is not None:
            found.append(Backing(block, path, mapping.offset))
    return tuple(found)


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


def _holds(mapping: _Mapping, block: BlockPlace) -> bool:
    """Whether the block is here whole, from the mapping's beginning, and nobody has a copy of his own."""
    if block.address is None or mapping.start != block.address:
        return False
    return mapping.end >= block.address + block.used and mapping.shared


def _file_of(pid: int, mapping: _Mapping, folder: Path) -> Path | None:
    if mapping.path.startswith(_NAMELESS) or mapping.path.endswith(_GONE):
        return _open_file(pid, mapping) or _mapped_file(pid, mapping)
    name = Path(mapping.path).name
    # The kernel prints the path as the QEMU's mount namespace has it; below the memory folder the name of
    # the file and its number are what both have in common.  Another guest's has the same name.
    for candidate in folder.rglob(name):
        with contextlib.suppress(OSError):  # it may go while it is looked at
            if candidate.stat().st_ino == mapping.inode:
                return candidate
    return _known_by_inode(mapping)


def _known_by_inode(mapping: _Mapping) -> Path | None:
    """A shared file outside of the folder, if its path means the same to us."""
    path = Path(mapping.path)
    with contextlib.suppress(OSError):
        if mapping.shared and path.stat().st_ino == mapping.inode:
            return path
    return None


def _open_file(pid: int, mapping: _Mapping) -> Path | None:
    """A path for a file that has no name: QEMU has it open, so ``/proc`` leads to it."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == mapping.path and entry.stat().st_ino == mapping.inode:
                return entry
    return None


def _mapped_file(pid: int, mapping: _Mapping) -> Path | None:
    """A path for one that QEMU has mapped and not open; the kernel leads only root to it."""
    path = Path(f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}")
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
    return path


def placed(maps: str, blocks: Sequence[BlockPlace]) -> list[BlockPlace]:
    """The blocks with the places of those that QEMU does not tell of, as far as they can be found.

    ``maps``: the QEMU's ``/proc/PID/maps``.  What could be either of two places, or either of two blocks,
    stays without one.
    """
    taken = {block.address for block in blocks}
    lost = [block for block in blocks if block.address is None]
    free = [place for place in _anonymous(maps) if place[0] not in taken]
    found: dict[str, int] = {}
    for block in lost:
        places = [start for start, size in free if size == _whole_pages(block.total)]
        rivals = [other for other in lost if _whole_pages(other.total) == _whole_pages(block.total)]
        if len(places) == len(rivals) == 1:
            found[block.name] = places[0]
    return [
        PlacedBlock(block.name, block.used, block.total, found[block.name]) if block.name in found else block
        for block in blocks
    ]


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _anonymous(maps: str) -> list[tuple[int, int]]:
    """Address and size of what looks like an anonymous RAMBlock."""
    rows = [match for match in map(_MAPPING.match, maps.splitlines()) if match]
    guarded = {int(row["start"], 16) for row in rows if row["mode"] == "---p" and not row["path"]}
    found = []
    for row in rows:
        start, end = int(row["start"], 16), int(row["end"], 16)
        if row["mode"] == "rw-p" and not row["path"] and start % _BLOCK_ALIGNMENT == 0 and end in guarded:
            found.append((start, end - start))
    return found


def read_block(pid: int, block: BlockPlace) -> bytes:
    """The content of a RAMBlock that has no file, read from the QEMU's memory.

    Exact only while the guest stands still.  Raises OSError for one that cannot be read.

    Pages that nobody has touched are not read: to read one would put it into QEMU's page table, and make
    untouched memory touched.
    """
    if block.address is None:
        raise OSError("QEMU does not tell where it is, and something else of its size is there")
    content = bytearray(block.used)
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _demand_mapped(pid, block.address, block.used)
        for begin, end in _touched(pid, block.address, block.used):
            view = memoryview(content)[begin:end]
            done = os.preadv(descriptor, [view], block.address + begin)
            if done != end - begin:
                raise OSError(f"only {begin + done} of {block.used} bytes could be read")
    finally:
        os.close(descriptor)
    return bytes(content)


def _demand_mapped(pid: int, address: int, used: int) -> None:
    """Raise OSError where there is no memory: the kernel says of that, too, that nobody has touched it."""
    text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    at, end = address, address + used
    # In order of their addresses
    for start, stop in (map(_hexadecimal, line.split(None, 1)[0].split("-")) for line in text.splitlines()):
        if start <= at < stop:
            at = stop
    if at < end:
        raise OSError(f"QEMU has nothing at {at:#x}")


def _hexadecimal(word: str) -> int:
    return int(word, 16)


def _touched(pid: int, address: int, used: int) -> list[tuple[int, int]]:
    """The parts of a block that are in memory or in swap, in bytes; all where the kernel does not tell."""
    whole = [(0, used)] if used else []
    if address % PAGE_SIZE or used % PAGE_SIZE:
        return whole
    size = used // PAGE_SIZE * _ENTRY
    try:
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
            entries = os.pread(pagemap.fileno(), size, address // PAGE_SIZE * _ENTRY)
    except OSError:
        return whole
    if len(entries) != size:
        return whole
    touched = (np.frombuffer(entries, dtype="<u8") & _THERE) != 0
    # Where it begins and where it ends, by the borders between what is there and what is not.
    borders = np.flatnonzero(np.diff(np.concatenate(([False], touched, [False]))))
    places = (borders * PAGE_SIZE).tolist()
    return list(zip(places[::2], places[1::2], strict=True))
