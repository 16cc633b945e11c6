# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAMBlocks of a QEMU, and what is in them.

The guest's RAM is a file, which outlives its QEMU.  Firmware and ACPI tables are
RAMBlocks as well, and migrate, but are anonymous memory; some are mapped nowhere
in the guest, so no monitor command saves them.  They are read out of the stopped
QEMU's address space: ``info ramblock`` says where they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MachineryError
from harness.migration.qmp import CommandError, Monitor
from harness.migration.statistics import RamBlock, parse_ramblocks

_MAPPING = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) \S+ (?P<offset>[0-9a-f]+) \S+ \d+\s*(?P<path>/.*)?"
)


@dataclass(frozen=True, slots=True)
class Backing:
    """A file that holds a RAMBlock, as seen by this process."""

    block: RamBlock
    path: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Which RAMBlocks a QEMU has: those in files, and the others."""

    files: tuple[Backing, ...]
    others: tuple[RamBlock, ...]


def query_ramblocks(monitor: Monitor) -> tuple[RamBlock, ...]:
    """Ask a QEMU for its RAMBlocks."""
    try:
        answer = monitor.execute("x-query-ramblock")
    except CommandError:
        answer = monitor.execute("human-monitor-command", {"command-line": "info ramblock"})
    text = answer.get("human-readable-text") if isinstance(answer, Mapping) else answer
    if not isinstance(text, str):
        raise MachineryError(f"the {monitor.side} QEMU does not tell its RAMBlocks: {answer!r}")
    return parse_ramblocks(text)


def layout(pid: int, blocks: Iterable[RamBlock], folder: Path) -> Layout:
    """Sort a QEMU's RAMBlocks: which are files below ``folder``, which only memory."""
    mappings = _mappings(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace"))
    files, others = [], []
    for block in blocks:
        path = _file_of(block, mappings, folder)
        if path is None:
            others.append(block)
        else:
            files.append(Backing(block, path))
    return Layout(tuple(files), tuple(others))


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    offset: int
    path: str


def _mappings(text: str) -> list[_Mapping]:
    found = []
    for line in text.splitlines():
        match = _MAPPING.match(line)
        if match and match["path"]:
            found.append(
                _Mapping(
                    int(match["start"], 16), int(match["end"], 16), int(match["offset"], 16), match["path"]
                )
            )
    return found


def _file_of(block: RamBlock, mappings: Iterable[_Mapping], folder: Path) -> Path | None:
    for mapping in mappings:
        # The whole block, from the file's beginning: nothing else is an image of it.
        if (
            mapping.start == block.address
            and mapping.offset == 0
            and mapping.end >= block.address + block.used
        ):
            name = Path(mapping.path).name
            # The kernel prints the path as the QEMU's mount namespace has it; below
            # the memory folder the name of the file is what both have in common.
            for candidate in folder.rglob(name):
                return candidate
    return None


def read_blocks(pid: int, blocks: Iterable[RamBlock]) -> dict[str, bytes | OSError]:
    """The content of RAMBlocks that have no file, read from the QEMU's memory; an error where it cannot be.

    Exact only while the guest stands still.
    """
    found: dict[str, bytes | OSError] = {}
    for block in blocks:
        try:
            found[block.name] = _read(pid, block.address, block.used)
        except OSError as error:
            found[block.name] = error
    return found


def _read(pid: int, address: int, length: int) -> bytes:
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, length, address)
    finally:
        os.close(descriptor)
    if len(content) != length:
        raise OSError(f"only {len(content)} of {length} bytes could be read")
    return content
