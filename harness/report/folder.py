# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folder: one a run, never overwritten, and honest about a run that did not end.

The folder is made with a file ``INCOMPLETE`` in it, which is removed as the very
last step.  A run that was killed cannot say that it was killed; its folder can.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
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


#: What a finished run says, and how large such a file may be, in bytes.
RUN_RESULT: Final = "result.json"
LARGEST_RESULT: Final = 64 << 20

#: Where QEMUs that count their lines (gcov) leave what they have counted.
LINE_COUNTERS: Final = "counters"

#: Any of these, and a folder is that of a run.
_OF_A_RUN: Final = (RUN_RESULT, INCOMPLETE_MARKER, "events.jsonl")

#: What libvirt's XML has no place for: control characters, and bytes that are no text.
_STRANGE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
#: Bytes of a whole path: the longest name that is made below it still has to fit.
_LONGEST_PATH: Final = 3072


def demand_new(path: Path | None) -> None:
    """Raise :class:`InputError` unless the run folder that the user names can be made.

    None is ever overwritten.  ``None``: a name will be picked below ``runs`` of the current folder.
    Looked at before anything is built, so that nobody waits for minutes to be told.
    """
    place = (Path.cwd() / "runs" if path is None else path).absolute()
    _demand_characters(place)
    try:
        if path is not None and (path.exists() or path.is_symlink()):
            raise _exists(path)
        above = next(folder for folder in (place, *place.parents) if folder.exists())
        if not above.is_dir():
            raise InputError(f"cannot make the run folder {place}: {above} is not a folder")
    except OSError as error:
        raise InputError(f"cannot make the run folder {place}: {error.strerror}") from error
    try:
        # Tried, and not reasoned about: permissions, quotas, and what is read-only are the file system's.
        Path(tempfile.mkdtemp(prefix=".freepage-", dir=above)).rmdir()
    except OSError as error:
        raise InputError(
            f"cannot make the run folder {place} below {above}: {error.strerror}", hint="give --out DIR"
        ) from error


def _demand_characters(place: Path) -> None:
    text = str(place)
    if bad := _STRANGE.search(text):
        # Bytes that are no UTF-8 come as surrogates, which cannot be printed.
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise InputError(
            f"the run folder {shown!r} has {bad.group()!r} in its name, which libvirt cannot be told",
            hint="give --out a name without control characters, in UTF-8",
        )
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise InputError(f"the run folder's path has over {_LONGEST_PATH} bytes: {text[:60]}...")


def is_run_folder(folder: Path) -> bool:
    """Whether the folder is that of a run, finished or not."""
    try:
        return any((folder / name).exists() for name in _OF_A_RUN)
    except OSError:  # of another user's
        return False


def demand_run_folder(folder: Path) -> None:
    """Raise :class:`InputError` unless the folder is that of a run, finished or not."""
    if is_run_folder(folder):
        return
    try:
        inside = sorted(path.name for path in folder.iterdir() if is_run_folder(path))
    except OSError as error:
        raise InputError(f"cannot look into {folder}: {error.strerror}") from error
    hint = f"it holds folders of runs: {', '.join(inside[-3:])}" if inside else None
    raise InputError(
        f"{folder} is not a run folder: it has none of {', '.join(_OF_A_RUN)}",
        hint=hint,
    )


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
            # In place: on a full disk a file that was emptied first would stay empty.
            with marker.open("r+" if marker.exists() else "w", encoding="utf-8") as file:
                file.write(note if note.endswith("\n") else note + "\n")
                file.truncate()

    @property
    def has_verdict(self) -> bool:
        """Whether the run reached a verdict, and said so."""
        return self.complete and self.file(RUN_RESULT).exists()
