# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks for guests: made once, shared by both hosts, never written to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.memory import formula
from harness.toolchain.cache import Cache, key_of

_PAGES_AT_ONCE: Final = 4096


def build_formula_disk(cache: Cache, size: int) -> Path:
    """A raw disk whose page N holds the formula's page N; ``size`` in bytes, whole pages."""
    pages = size // formula.PAGE

    def build(folder: Path) -> None:
        with cache.events.step("disk", bytes=size), (folder / "disk.raw").open("wb") as file:
            for first in range(0, pages, _PAGES_AT_ONCE):
                content = formula.disk_content(first, min(_PAGES_AT_ONCE, pages - first))
                file.write(content.astype("<u8").tobytes())

    # What is in it is a formula: its seed and its size are all that it depends on.
    key = key_of(seed=formula.DISK_SEED, pages=pages, build=1)
    return cache.get("disk", key, build, what="the guest's disk", space=size) / "disk.raw"
