# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking after the cache: what is in it, whether it is whole, and what may go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.toolchain.cache import Cache, file_digest, sums_file
from harness.toolchain.sums import Sums
from harness.units import DAY


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One thing that was built or fetched."""

    kind: str
    key: str
    path: Path
    size: int
    """Bytes on disk."""
    used: float
    """When a run last used it, in seconds since 1970; when it was made, if nobody knows."""
    detail: str
    """What it is, where it says so."""
    own: bool
    """Whether it is in the folder that is written to."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry that was read whole."""

    entry: CacheEntry
    wrong: str | None
    """What is wrong with it."""
    known: bool
    """Whether there was anything to hold it against."""


def entries(cache: Cache, since: float = 0.0) -> list[CacheEntry]:
    """All that is finished, by kind, the longest unused first.

    ``since``: only what was made or used then or later, in seconds since 1970; the rest is not read.
    """
    found = []
    for layer in cache.layers:
        for path in (layer / "store").glob("*/*"):
            if path.name.startswith(".") or not path.is_dir():
                continue
            # Another run may have taken it away meanwhile.
            with contextlib.suppress(FileNotFoundError):
                used = _last_use(path)
                if used >= since:
                    found.append(_entry(path, used, own=layer == cache.root))
    return sorted(found, key=lambda entry: (entry.kind, entry.used))


def _last_use(path: Path) -> float:
    marks = [path.stat().st_mtime]
    with contextlib.suppress(OSError):
        marks.append(sums_file(path).stat().st_mtime)
    return max(marks)


def _entry(path: Path, used: float, *, own: bool) -> CacheEntry:
    return CacheEntry(path.parent.name, path.name, path, _size(path), used, _detail(path), own)


def _size(path: Path) -> int:
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_blocks * 512
    return total


def _detail(path: Path) -> str:
    """What QEMU, package or kernel it is, from what lies in it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        made_of = json.loads((path / "made-of.json").read_text("utf-8"))
        return f"QEMU {made_of.get('source')}, {len(made_of.get('patches', ()))} patches"
    for pattern, words in (("boot/vmlinuz-*", "{}"), ("*.deb", "{}"), ("*.ko", "{}"), ("initrd.cpio", "{}")):
        for file in path.glob(pattern):
            return words.format(file.name)
    return ""


def read_whole(entry: CacheEntry) -> Checked:
    """Read every byte of an entry.

    One of before sums were kept is held against what it says of itself, if it does (QEMU), and gets
    sums for the next time.
    """
    known = Sums.load(sums_file(entry.path))
    if known is not None:
        return Checked(entry, known.whole(entry.path), known=True)
    wrong, told = _against_itself(entry)
    if wrong is None and entry.own:
        with contextlib.suppress(OSError):
            Sums.of(entry.path).save(sums_file(entry.path))
    return Checked(entry, wrong, known=told)


def _against_itself(entry: CacheEntry) -> tuple[str | None, bool]:
    if entry.kind != "qemu":
        return None, False
    try:
        digest = json.loads((entry.path / "facts.json").read_text("utf-8"))["sha256"]
        programs = [path for path in entry.path.iterdir() if path.name.startswith("qemu-system-")]
        if not any(file_digest(path) == digest for path in programs):
            return "its program is not the one that facts.json tells of", True
    except (OSError, ValueError, KeyError, TypeError):
        return "facts.json is missing, or cannot be read", True
    return None, True


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was taken away, or would be."""

    path: Path
    size: int
    why: str


def prune(
    cache: Cache, *, unused_for: float, kinds: Sequence[str] = (), dry_run: bool = False
) -> Iterator[Pruned]:
    """Take away what no run has used for so many seconds, and what killed runs have left.

    ``kinds``: only entries of these.  What others own is not touched, nor what is being built.
    """
    now = time.time()
    for entry in entries(cache):
        if not entry.own or (kinds and entry.kind not in kinds) or now - entry.used < unused_for:
            continue
        if not dry_run:
            with cache.lock(f"{entry.kind}-{entry.key}", f"{entry.kind} {entry.key}"):
                if entry.path.is_dir():
                    cache.discard(entry.kind, entry.key)
        yield Pruned(entry.path, entry.size, f"unused for {(now - entry.used) / DAY:.0f} days")
    for path in sorted((cache.root / "store").glob("*/.*")):
        if kinds and path.parent.name not in kinds:
            continue
        key = path.name[1:].partition(".")[0]
        with _free(cache, f"{path.parent.name}-{key}") as free:
            if free and path.is_dir():
                size = _size(path)
                if not dry_run:
                    shutil.rmtree(path, ignore_errors=True)
                yield Pruned(path, size, "left by a run that was killed")
    lists = cache.root / "apt"
    if lists.is_dir() and not kinds:
        size = _size(lists)
        if not dry_run:
            shutil.rmtree(lists, ignore_errors=True)
        yield Pruned(lists, size, "lists of a version that asked apt")


@contextlib.contextmanager
def _free(cache: Cache, name: str) -> Iterator[bool]:
    """Whether nobody has that lock; nobody gets it meanwhile."""
    lock = FileLock(cache.folder("locks") / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
