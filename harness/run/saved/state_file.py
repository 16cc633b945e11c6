# SPDX-License-Identifier: GPL-2.0-or-later
"""The file through which a guest goes: where it is, how large it became, and what is done to it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MachineryError
from harness.units import Percent, human_size

if TYPE_CHECKING:
    from harness.events import EventStream
    from harness.scenario.saved_file import SavedFile


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file in the end.  Sizes in bytes, times in milliseconds; None: not come to.

    ``spoilt``: in words, what was done to it before it was restored; empty: nothing.
    ``written_meanwhile``: pages that the guest wrote while it was saved, of a background snapshot.
    """

    way: str
    path: str
    bytes: int | None = None
    allocated: int | None = None
    write_ms: int | None = None
    restore_ms: int | None = None
    used_memory: bool = False
    spoilt: str = ""
    written_meanwhile: int | None = None


class StateFile:
    """See the module.  ``path`` is where it is written; both hosts see it there."""

    def __init__(self, way: str, path: Path, how: SavedFile, events: EventStream) -> None:
        self.path = path
        self.how = how
        self.facts = FileFacts(way, str(path))
        self._events = events
        self._since = time.monotonic()

    def begun(self) -> None:
        """From here on it is being written."""
        self._since = time.monotonic()

    def written(self) -> None:
        """It is whole."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise MachineryError(f"the file {self.path} was not written: {error.strerror}") from error
        self.facts = replace(
            self.facts, bytes=found.st_size, allocated=found.st_blocks * 512, write_ms=self._milliseconds()
        )
        self._events.emit(
            "file-written",
            path=str(self.path),
            bytes=self.facts.bytes,
            allocated=self.facts.allocated,
            ms=self.facts.write_ms,
        )

    def to_restore(self) -> Path:
        """The file to restore, after all that the scenario has done to it.  The time runs from here."""
        path = self.path
        if self.how.instead is not None:
            path = Path(self.how.instead)
            self._spoilt(f"{path}, in place of the file that was written")
        elif self.how.cut_to is not None:
            whole = self.path.stat().st_size
            share = self.how.cut_to
            kept = share.of(whole) if isinstance(share, Percent) else min(share, whole)
            path = self.path.with_name(f"{self.path.name}.cut")
            shutil.copyfile(self.path, path)
            os.truncate(path, kept)
            self._spoilt(
                f"a file cut off after {kept} of {whole} bytes ({human_size(whole - kept)} are missing)"
            )
        self._since = time.monotonic()
        return path

    def restored(self) -> None:
        """A QEMU has taken it whole."""
        self.facts = replace(self.facts, restore_ms=self._milliseconds())
        self._events.emit("file-restored", path=str(self.path), ms=self.facts.restore_ms)

    def memory_was_used(self) -> None:
        """The destination's memory was not zero when the file was restored."""
        self.facts = replace(self.facts, used_memory=True)

    def pages_written_meanwhile(self, pages: int) -> None:
        """So many pages are not any more what they were at the moment that the file has."""
        self.facts = replace(self.facts, written_meanwhile=pages)

    def remove(self) -> None:
        """Take away what is as large as a guest."""
        for path in (self.path, self.path.with_name(f"{self.path.name}.cut")):
            path.unlink(missing_ok=True)

    def _spoilt(self, words: str) -> None:
        self.facts = replace(self.facts, spoilt=words)
        self._events.emit("file-spoilt", path=str(self.path), text=words)

    def _milliseconds(self) -> int:
        return round(1000 * (time.monotonic() - self._since))
