# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's stream, in lines for people."""

from __future__ import annotations

from typing import Final

from harness.report.result import Result
from harness.units import human_size

_COLUMNS: Final = ("pages", "full", "zero", "delta", "again", "never")
#: What is wrong with pages, by the field that lists them.
_WRONG: Final = {
    "not_loaded": "the destination holds them otherwise than the stream brought them last",
    "stale": "they came last with other content than the source held at switch-over",
    "unordered": "they came by two connections, and it is chance which is later",
    "record_only": "the device's record has them as sent, the stream has not",
    "wire_only": "the stream has them, the device's record has not",
}


def wire_lines(result: Result) -> list[str]:
    """What came through the stream, block by block, and which pages of it are wrong."""
    wire = result.wire
    if wire is None:
        return ["nobody has listened to the stream of this run: --set tap=true"]
    size = wire.bytes
    lines = [f"{human_size(size.total)}, memory in {wire.memory_sections} sections"]
    if wire.unread is not None:
        return [f"{human_size(size.total)}, of which nothing is known: {wire.unread}"]
    lines.append(
        f"whole pages {human_size(size.whole)}, deltas {human_size(size.deltas)}, "
        f"devices {human_size(size.devices)}, the rest {human_size(size.rest)}"
    )
    lines += [
        f"round {number:4}: {one.full:9} whole, {one.zero:9} zero, {one.delta:9} deltas"
        for number, one in enumerate(wire.rounds, 1)
    ]
    lines.append(f"{'block':32}" + "".join(f"{name:>10}" for name in _COLUMNS))
    for block in wire.blocks:
        numbers = (block.pages, block.full, block.zero, block.delta, block.again, block.never.count)
        lines.append(f"{block.name:32}" + "".join(f"{number:>10}" for number in numbers))
    for block in wire.blocks:
        for field, words in _WRONG.items():
            pages = getattr(block, field)
            if pages.count:
                first = ", ".join(map(str, pages.first[:8]))
                lines.append(f"WRONG  {pages.count} pages of {block.name} ({first}): {words}")
    return lines
