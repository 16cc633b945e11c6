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

#: In front of the names of a PCI device's blocks, as "0000:00:04.0/".
_PCI_PLACE = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/")


def parse_map(text: str, names: Iterable[str]) -> Mapping[str, list[Range]]:
    """The ranges of these blocks in the flat view that the guest's CPUs have.

    Raises :class:`MachineryError` if there is no such view in the text.
    """
    views = re.split(r"^FlatView", text, flags=re.MULTILINE)
    view = next((view for view in views if re.search(r'AS "memory"', view)), None)
    if view is None:
        raise MachineryError(f"QEMU does not tell its memory map: {text[:500]!r}")
    wanted = _by_region(names)
    found: dict[str, list[Range]] = {}
    for match in _RANGE.finditer(view):
        if (name := wanted.get(match["name"])) is not None:
            first, last = int(match["first"], 16), int(match["last"], 16)
            found.setdefault(name, []).append((first, int(match["offset"] or "0", 16), last + 1 - first))
    return found


def _by_region(names: Iterable[str]) -> Mapping[str, str]:
    """Blocks by the name of their region: a block of a PCI device has the device's place in front of it.

    Where two devices have regions of one name, the map does not tell which is which.
    """
    regions: dict[str, list[str]] = {}
    for name in names:
        place = _PCI_PLACE.match(name)
        regions.setdefault(name[place.end() :] if place else name, []).append(name)
    return {region: blocks[0] for region, blocks in regions.items() if len(blocks) == 1}


def query_map(monitor: Monitor, names: Iterable[str]) -> Mapping[str, list[Range]]:
    """Ask a QEMU where in its guest's memory these blocks are."""
    text = monitor.execute("human-monitor-command", {"command-line": "info mtree -f"})
    return parse_map(str(text), names)
