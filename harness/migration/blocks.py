# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAMBlocks of a QEMU.

The guest's RAM is a file, which outlives its QEMU.  Firmware and ACPI tables are
RAMBlocks as well, and migrate, but are anonymous memory; some are mapped nowhere
in the guest, so no monitor command saves them.  They are read out of the stopped
QEMU's address space (:mod:`harness.memory.qemu_ram`): ``info ramblock`` says where
they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import MachineryError
from harness.migration.qmp import CommandError, Monitor
from harness.migration.statistics import RamBlock, parse_ramblocks


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
