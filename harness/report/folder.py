# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folder: one a run, never overwritten, and honest about a run that did not end.

The folder is made with a file ``INCOMPLETE`` in it, which is removed as the very
last step.  A run that was killed cannot say that it was killed; its folder can.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from harness.errors import InputError, MachineryError

INCOMPLETE_MARKER: Final = "INCOMPLETE"

_MARKER_TEXT: Final = (
    "This run has not ended: it is still going on, was interrupted, or was killed.\n"
    "What lies here is what there was until then; there is no verdict unless result.json says one.\n"
)


def demand_new(path: Path | None) -> None:
    """Raise :class:`InputError` if the run folder that the user names exists: none is ever overwritten."""
    if path is not None and path.exists():
        raise _exists(path)


def _exists(path: Path) -> InputError:
    return InputError(
        f"the run folder {path} exists already",
        hint="a run folder is never overwritten: give --out another name, or none",
    )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one run lies.  ``README`` of the layout: docs/run.md."""

    path: Path

    @classmethod
    def create(cls, path: Path | None, scenario: str, arm: str) -> RunFolder:
        """Make the folder; ``None`` picks a new name under ``./runs``."""
        if path is None:
            return cls._create_fresh(Path.cwd() / "runs", scenario, arm)
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            raise _exists(path) from error
        except OSError as error:
            raise InputError(f"cannot make the run folder {path}: {error.strerror}") from error
        return cls(path.resolve())._marked()

    @staticmethod
    def stem(scenario: str, arm: str) -> str:
        """A new folder's name, but for a number where two begin in one second."""
        return f"{datetime.now():%Y%m%d-%H%M%S}-{scenario}-{arm}"

    @classmethod
    def _create_fresh(cls, parent: Path, scenario: str, arm: str) -> RunFolder:
        stem = cls.stem(scenario, arm)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 1000):
                path = parent / (stem if number == 1 else f"{stem}-{number}")
                # mkdir is the lock: two runs in the same second get two folders.
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    return cls(path)._marked()
        except OSError as error:
            raise InputError(
                f"cannot make a run folder under {parent}: {error.strerror}", hint="give --out DIR"
            ) from error
        raise MachineryError(f"no free name for a run folder under {parent}")

    def _marked(self) -> RunFolder:
        (self.path / INCOMPLETE_MARKER).write_text(_MARKER_TEXT, encoding="utf-8")
        return self

    def below(self, name: str) -> RunFolder:
        """A new folder in it, for a part of the run."""
        path = self.path / name
        path.mkdir()
        return RunFolder(path)

    def file(self, name: str) -> Path:
        """The path of one file in the folder."""
        return self.path / name

    def write_text(self, name: str, text: str) -> Path:
        """Write a new text file; an existing one is an error of the harness."""
        path = self.path / name
        with path.open("x", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") or not text else text + "\n")
        return path

    def write_whole(self, name: str, text: str) -> Path:
        """Write a new text file, whole or not at all."""
        path = self.path / name
        draft = self.path / f".{name}.part"
        draft.write_text(text, encoding="utf-8")
        # link + unlink, where rename would silently replace.
        try:
            os.link(draft, path)
        finally:
            draft.unlink()
        return path

    @property
    def complete(self) -> bool:
        """Whether the run ended as it should."""
        return not (self.path / INCOMPLETE_MARKER).exists()

    def finish(self, note: str | None = None) -> None:
        """Take the marker away; with ``note``, the run ended early and the marker says how."""
        marker = self.path / INCOMPLETE_MARKER
        if note is None:
            marker.unlink(missing_ok=True)
        else:
            marker.write_text(note if note.endswith("\n") else note + "\n", encoding="utf-8")
