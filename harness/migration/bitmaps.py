# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a QEMU for the dirty bitmaps of its disks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.errors import MachineryError
from harness.migration.qmp import Monitor
from harness.verdict.bitmaps import DirtyBitmap


def bitmaps_of(monitor: Monitor) -> tuple[DirtyBitmap, ...]:
    """All that have a name, which are those that migrate.  Raises what :meth:`Monitor.execute` raises."""
    answer = monitor.execute("query-named-block-nodes", {"flat": True})
    if not isinstance(answer, list):
        raise MachineryError(f"the {monitor.side} QEMU does not tell its block nodes: {answer!r}")
    return tuple(bitmap for node in answer for bitmap in _of_node(monitor, node))


def _of_node(monitor: Monitor, node: Mapping[str, object]) -> Iterator[DirtyBitmap]:
    bitmaps, name = node.get("dirty-bitmaps"), str(node.get("node-name"))
    for bitmap in bitmaps if isinstance(bitmaps, list) else []:
        if not bitmap.get("name"):
            continue
        at = {"node": name, "name": bitmap["name"]}
        digest = monitor.execute("x-debug-block-dirty-bitmap-sha256", at)
        yield DirtyBitmap(
            node=name,
            name=str(bitmap["name"]),
            granularity=int(bitmap["granularity"]),
            persistent=bitmap.get("persistent") is True,
            recording=bitmap.get("recording") is True,
            count=int(bitmap["count"]),
            digest=str(digest["sha256"]) if isinstance(digest, Mapping) else "",
        )
