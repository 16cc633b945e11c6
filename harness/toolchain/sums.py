# SPDX-License-Identifier: GPL-2.0-or-later
"""What an entry of the cache was made of, file by file, so that damage is noticed.

    known = Sums.of(folder)          # when it is made: every file's size, time and SHA-256
    known.save(file)
    Sums.load(file).quick(folder)    # at each use: what stat() tells; a hash only where it tells of a change
    Sums.load(file).whole(folder)    # every hash: freepage cache verify

Both return what is wrong in words, or None.  Files that came later (compiled Python, say) do not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: An entry of more files is an unpacked system: looking at each would cost every run too much.
QUICK_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class FileSum:
    """One regular file: bytes, modification time in nanoseconds, SHA-256."""

    size: int
    time: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sums:
    """All regular files of an entry, by their path below it, and the targets of its links."""

    files: dict[str, FileSum]
    links: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> Sums:
        """What is there now."""
        files: dict[str, FileSum] = {}
        links: dict[str, str] = {}
        for name, path, about in _walk(folder):
            if stat.S_ISLNK(about.st_mode):
                links[name] = os.readlink(path)  # noqa: PTH115 - as it is written
            elif stat.S_ISREG(about.st_mode):
                files[name] = FileSum(about.st_size, about.st_mtime_ns, _digest(path))
        return cls(files, links)

    @classmethod
    def load(cls, file: Path) -> Sums | None:
        """What was saved; None where nothing was, or it cannot be read."""
        try:
            data = json.loads(file.read_text("utf-8"))
            files = {str(name): FileSum(*row) for name, row in data["files"].items()}
            links = {str(name): str(target) for name, target in data["links"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return cls(files, links)

    def save(self, file: Path) -> None:
        """Write it, whole or not at all."""
        rows = {name: [one.size, one.time, one.sha256] for name, one in self.files.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"files": rows, "links": self.links}), encoding="utf-8")
        draft.replace(file)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files.values())

    def quick(self, folder: Path) -> str | None:
        """What is wrong, as far as it is cheap to see: files that are gone, cut, or written to since."""
        if len(self.files) > QUICK_FILES:
            return None
        return next(filter(None, (self._look(folder, name, hashed=False) for name in self.files)), None)

    def whole(self, folder: Path) -> str | None:
        """What is wrong, after reading every byte."""
        for name, target in self.links.items():
            path = folder / name
            if not path.is_symlink() or os.readlink(path) != target:  # noqa: PTH115
                return f"{name} is not the link to {target} that it was"
        return next(filter(None, (self._look(folder, name, hashed=True) for name in self.files)), None)

    def _look(self, folder: Path, name: str, *, hashed: bool) -> str | None:
        known, path = self.files[name], folder / name
        try:
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                return f"{name} is no file any more"
            if about.st_size != known.size:
                return f"{name} has {about.st_size} bytes, and was made with {known.size}"
            # A copy of the cache has other times, and is as good.
            if (hashed or about.st_mtime_ns != known.time) and _digest(path) != known.sha256:
                return f"{name} is not what was made: its SHA-256 is another"
        except FileNotFoundError:
            return f"{name} is gone"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        return None


def _walk(folder: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    for place, folders, names in os.walk(folder):
        for name in (*names, *folders):
            path = Path(place, name)
            about = path.lstat()
            if not stat.S_ISDIR(about.st_mode):
                yield str(path.relative_to(folder)), path, about


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
