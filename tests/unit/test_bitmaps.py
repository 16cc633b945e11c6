# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps of disks: how QEMU tells of them, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from harness.migration.bitmaps import bitmaps_of
from harness.migration.qmp import Monitor
from harness.verdict.bitmaps import DirtyBitmap, bitmap_findings

MINE = DirtyBitmap("disk", "written", 65536, persistent=False, recording=True, count=131072, digest="ab")


class FakeMonitor:
    """A QEMU with one disk that has two bitmaps, of which one is without a name."""

    side = "source"

    def execute(self, command: str, arguments: Any = None) -> object:
        if command == "x-debug-block-dirty-bitmap-sha256":
            assert arguments == {"node": "disk", "name": "written"}
            return {"sha256": "ab"}
        bitmap = {"granularity": 65536, "count": 131072, "recording": True, "persistent": False, "busy": True}
        both = [bitmap, {**bitmap, "name": "written"}]
        return [{"node-name": "other"}, {"node-name": "disk", "dirty-bitmaps": both}]


def test_those_with_a_name_are_told() -> None:
    assert bitmaps_of(cast(Monitor, FakeMonitor())) == (MINE,)


def test_what_arrives_is_what_left() -> None:
    assert list(bitmap_findings([MINE], [replace(MINE, name="more"), MINE])) == []
    [finding] = bitmap_findings([MINE], [])
    assert finding.text == "the dirty bitmap 'written' of the disk 'disk' is not there on the destination"
    [finding] = bitmap_findings([MINE], [replace(MINE, count=0, digest="cd", recording=False)])
    assert finding.rule == "bitmaps-differ"
    assert finding.text.endswith("recording True -> False, count 131072 -> 0, digest ab -> cd")


def test_a_mapping_says_which_of_them_go() -> None:
    named = [{"node-name": "disk", "alias": "d", "bitmaps": [{"name": "written", "alias": "w"}]}]
    assert list(bitmap_findings([MINE], [], [])) == []
    [finding] = bitmap_findings([MINE], [MINE], [])
    assert finding.text.endswith("is there on the destination, and block-bitmap-mapping does not name it")
    assert list(bitmap_findings([MINE], [MINE], named)) == []
    [finding] = bitmap_findings([MINE], [], named)
    assert finding.text.endswith("is not there on the destination")


def test_one_that_the_disk_keeps_comes_with_the_disk() -> None:
    kept = replace(MINE, persistent=True)
    assert list(bitmap_findings([kept], [kept], [])) == []


def test_a_mapping_may_make_one_persistent() -> None:
    become = {"name": "written", "alias": "w", "transform": {"persistent": True}}
    named = [{"node-name": "disk", "alias": "d", "bitmaps": [become]}]
    here = replace(MINE, persistent=False)
    there = replace(MINE, persistent=True)
    assert list(bitmap_findings([here], [there], named)) == []
    [finding] = bitmap_findings([here], [replace(there, count=0)], named)
    assert "count" in finding.text
    assert "persistent" not in finding.text
