# SPDX-License-Identifier: GPL-2.0-or-later
"""Where guests are kept that runs may go on from: entries of the cache, with a limit to what they take.

    store = WarmStore(cache)
    if store.wanted_again(key):
        folder = store.get(key, make)

A guest that is wanted once is not kept: writing it down would cost that run more than it saves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.toolchain.cache import GIB, Cache
from harness.toolchain.care import CacheEntry, entries

WARM_KIND: Final = "warm"
#: All of them together, in bytes; the longest unused go first.
LIMIT: Final = 4 * GIB
#: For so long it is remembered that a guest was wanted, in seconds.
_REMEMBERED: Final = 6 * 3600.0


class WarmStore:
    """``limit``: bytes on disk of all guests that are kept."""

    def __init__(self, cache: Cache, limit: int = LIMIT) -> None:
        self._cache = cache
        self._limit = limit

    def wanted_again(self, key: str) -> bool:
        """Whether it is kept, or was wanted before; from now on it was."""
        if self._cache.has(WARM_KIND, key):
            return True
        folder = self._cache.folder("warm-wanted")
        forgotten = time.time() - _REMEMBERED
        for mark in folder.iterdir():
            # Another run may be at the same.
            with contextlib.suppress(FileNotFoundError):
                if mark.stat().st_mtime < forgotten:
                    mark.unlink()
        try:
            (folder / key).touch(exist_ok=False)
        except FileExistsError:
            (folder / key).touch()
            return True
        return False

    def get(self, key: str, make: Callable[[Path], None], space: int) -> Path:
        """The guest's folder; ``make`` fills it if there is none, which takes ``space`` bytes at most."""
        made: list[Path] = []

        def build(folder: Path) -> None:
            make(folder)
            made.append(folder)

        place = self._cache.get(WARM_KIND, key, build, what="a guest to go on from", space=space)
        if made:
            self._make_room(but=key)
        return place

    def discard(self, key: str) -> None:
        """Take one away that does not serve."""
        with contextlib.suppress(OSError):
            self._cache.discard(WARM_KIND, key)

    def _make_room(self, but: str) -> None:
        kept: list[CacheEntry] = [one for one in entries(self._cache) if one.kind == WARM_KIND and one.own]
        total = sum(one.size for one in kept)
        for one in sorted(kept, key=lambda entry: entry.used):
            if total <= self._limit:
                return
            if one.key != but:
                # Who reads it has its files open.
                self.discard(one.key)
                total -= one.size
