# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAMBlocks of a QEMU.

The guest's RAM is a file, which outlives its QEMU.  Firmware and ACPI tables are
RAMBlocks as well, and migrate, but are anonymous memory; some are mapped nowhere
in the guest, so no monitor command saves them.  They are read out of the stopped
QEMU's address space (:mod:`harness.memory.qemu_ram`): ``info ramblock`` says where
they are.  A QEMU before 8.1 does not: it says of an address of the guest where that
is (``gpa2hva``), and nothing of the blocks that are mapped nowhere in the guest.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.errors import MachineryError
from harness.migration.memory_map import Range, query_map
from harness.migration.qmp import CommandError, Monitor
from harness.migration.statistics import RamBlock, parse_ramblocks

_ADDRESS = re.compile(r"^Host virtual address for \S+ .* is (0x[0-9a-f]+)\s*$", re.MULTILINE)


def query_ramblocks(monitor: Monitor) -> tuple[RamBlock, ...]:
    """Ask a QEMU for its RAMBlocks."""
    try:
        answer = monitor.execute("x-query-ramblock")
    except CommandError:
        answer = monitor.execute("human-monitor-command", {"command-line": "info ramblock"})
    text = answer.get("human-readable-text") if isinstance(answer, Mapping) else answer
    if not isinstance(text, str):
        raise MachineryError(f"the {monitor.side} QEMU does not tell its RAMBlocks: {answer!r}")
    blocks = parse_ramblocks(text)
    if all(block.address is not None for block in blocks):
        return blocks
    return tuple(_located(monitor, blocks))


def _located(monitor: Monitor, blocks: Sequence[RamBlock]) -> Iterator[RamBlock]:
    places = query_map(monitor, [block.name for block in blocks])
    for block in blocks:
        address = _address(monitor, places[block.name][0]) if block.name in places else None
        yield dataclasses.replace(block, address=address)


def _address(monitor: Monitor, place: Range) -> int | None:
    """Where QEMU has a block mapped of which a part is at a guest address."""
    guest, offset, _ = place
    said = monitor.execute("human-monitor-command", {"command-line": f"gpa2hva {guest:#x}"})
    return parse_address(str(said), offset)


def parse_address(said: str, offset: int = 0) -> int | None:
    """Where a block begins, from what ``gpa2hva`` says of the address at ``offset``; None: it does not."""
    match = _ADDRESS.search(said)
    return int(match[1], 16) - offset if match else None
