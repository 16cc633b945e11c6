# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guest addresses a QEMU has put each RAMBlock at, from ``info mtree -f``.

The device's record says the same, once a migration has begun; this is to be had
before, and from a QEMU that keeps no record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from harness.errors import MachineryError
from harness.migration.qmp import Monitor

#: (guest address, offset in the block, length), in bytes.
Range = tuple[int, int, int]

_RANGE = re.compile(
    r"^ +(?P<first>[0-9a-f]{16})-(?P<last>[0-9a-f]{16}) \(prio -?\d+, (?:ram|rom|nv-ram)\): "
    r"(?P<name>\S+)(?: @(?P<offset>[0-9a-f]+))?",
    re.MULTILINE,
)


def parse_map(text: str, names: Iterable[str]) -> Mapping[str, list[Range]]:
    """The ranges of these blocks in the flat view that the guest's CPUs have.

    Raises :class:`MachineryError` if there is no such view in the text.
    """
    views = re.split(r"^FlatView", text, flags=re.MULTILINE)
    view = next((view for view in views if re.search(r'AS "memory"', view)), None)
    if view is None:
        raise MachineryError(f"QEMU does not tell its memory map: {text[:500]!r}")
    wanted = set(names)
    found: dict[str, list[Range]] = {}
    for match in _RANGE.finditer(view):
        if match["name"] in wanted:
            first, last = int(match["first"], 16), int(match["last"], 16)
            found.setdefault(match["name"], []).append(
                (first, int(match["offset"] or "0", 16), last + 1 - first)
            )
    return found


def query_map(monitor: Monitor, names: Iterable[str]) -> Mapping[str, list[Range]]:
    """Ask a QEMU where in its guest's memory these blocks are."""
    text = monitor.execute("human-monitor-command", {"command-line": "info mtree -f"})
    return parse_map(str(text), names)
