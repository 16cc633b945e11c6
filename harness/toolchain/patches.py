# SPDX-License-Identifier: GPL-2.0-or-later
"""A quilt series: reading it, and what a tree looks like with it applied.

Patches are applied to copies of the few files that they touch, never to the
tree itself.  The tree is then brought to that state by writing only the files
whose content differs: a build there rebuilds what those files concern, and
nothing else (:mod:`harness.toolchain.worktree`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from harness.errors import InputError, MachineryError
from harness.toolchain.run import run_program

#: The series for what is on the way to QEMU's next release.
MASTER: Final = "master"
#: QEMU's development versions are 10.2.50 and up, its release candidates 10.2.90 and up.
_FIRST_DEVELOPMENT: Final = 50

_HEADER = re.compile(r"^(?:---|\+\+\+) (?P<name>[^\t\n]+)")
_PATCHING = re.compile(r"^(?:patching|checking) file '?(?P<file>.+?)'?(?: \(.*\))?$")
_HUNK = re.compile(r"^Hunk #(?P<hunk>\d+) FAILED at (?P<line>\d+)")


@dataclasses.dataclass(frozen=True)
class Patch:
    """One patch of a series, as it was when it was read: somebody may edit it during a build."""

    path: Path
    digest: str
    content: bytes = dataclasses.field(repr=False)

    @property
    def name(self) -> str:
        """The name of the patch's file."""
        return self.path.name


def series_of(version: str) -> str:
    """The name of the series for a version of QEMU: ``10.2`` for 10.2.2, ``master`` for 10.2.50."""
    parts = version.split(".")
    if len(parts) > 2 and parts[2].isdigit() and int(parts[2]) >= _FIRST_DEVELOPMENT:
        return MASTER
    return ".".join(parts[:2])


def patch_at(path: Path) -> Patch:
    """A patch that is not (or not yet) in a series."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the patch {path}: {error.strerror}") from error
    return Patch(path, hashlib.sha256(content).hexdigest(), content)


def read_series(series: Path) -> tuple[Patch, ...]:
    """The patches of a quilt ``series`` file, in order; comments and blank lines are left out."""
    try:
        text = series.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot read the series {series}: {error.strerror}") from error
    patches = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[1:] not in ([], ["-p1"]):
            raise InputError(f"{series}:{number}: only -p1 is supported, not '{' '.join(words[1:])}'")
        path = series.parent / words[0]
        if not path.is_file():
            raise InputError(f"{series}:{number}: there is no patch {words[0]}")
        patches.append(patch_at(path))
    return tuple(patches)


def touched_files(text: str, name: str) -> tuple[str, ...]:
    """The files that a patch changes, makes or removes, relative to the tree (-p1)."""
    lines = text.splitlines()
    found: dict[str, None] = {}
    for before, after in itertools.pairwise(lines):
        # A hunk may hold lines that look like one of the two, but not both in a row:
        # "--- x" there removes "-- x" and is followed by "+++ y" only if it adds "++ y".
        if not (before.startswith("--- ") and after.startswith("+++ ")):
            continue
        for line in (before, after):
            match = _HEADER.match(line)
            if match and match["name"].strip() != "/dev/null":
                found[_inside(match["name"].strip(), name)] = None
    if any(line.startswith(("rename from ", "copy from ", "GIT binary patch")) for line in lines):
        raise InputError(f"the patch {name} renames files or is binary", hint="git format-patch --no-renames")
    return tuple(found)


def _inside(path: str, patch: str) -> str:
    parts = PurePosixPath(path).parts[1:]
    if not parts or path.startswith("/") or ".." in parts:
        raise InputError(f"the patch {patch} names a file outside of the tree: {path}")
    return str(PurePosixPath(*parts))


def failed_hunk(output: str) -> str | None:
    """Where a patch failed, out of what ``patch`` printed: ``file X, hunk 2, at line 310``."""
    file = "?"
    for line in output.splitlines():
        patching = _PATCHING.match(line)
        hunk = _HUNK.match(line)
        if patching:
            file = patching["file"]
        elif hunk:
            return f"file {file}, hunk {hunk['hunk']}, at line {hunk['line']}"
        elif "can't find file to patch" in line:
            return "a file that the source does not have"
        elif "malformed patch" in line or "Only garbage" in line:
            return line.split(": ")[-1].strip().rstrip(".")
        elif "which already exists" in line or "previously applied" in line:
            return f"file {file}: it seems to be there already"
    return None


def apply_series(patches: Sequence[Patch], stage: Path, original: Callable[[str], Path | None]) -> set[str]:
    """Apply patches, in order, to copies in ``stage`` of the originals of what they touch.

    ``original`` gives the unpatched file (None: the source has no such file).
    Returns the names of all files touched; one that is not in ``stage``
    afterwards does not exist in the patched tree.
    """
    touched: set[str] = set()
    for patch in patches:
        text = patch.content.decode("utf-8", errors="replace")
        for name in touched_files(text, patch.name):
            if name not in touched:
                touched.add(name)
                source = original(name)
                if source is not None:
                    (stage / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, stage / name)
        _apply(patch, stage)
    return touched


def _apply(patch: Patch, stage: Path) -> None:
    with tempfile.NamedTemporaryFile(suffix=f".{patch.name}") as copy:
        copy.write(patch.content)
        copy.flush()
        _run_patch(patch, Path(copy.name), stage)


def _run_patch(patch: Patch, file: Path, stage: Path) -> None:
    # No fuzz: a hunk that fits only roughly is one that nobody looked at.
    options = ["-p1", "-F0", "--batch", "--forward", "--no-backup-if-mismatch", "-r", "-"]
    output: list[str] = []
    try:
        run_program(
            ["patch", *options, "-i", file], what=f"apply {patch.name}", cwd=stage, on_line=output.append
        )
    except MachineryError as error:
        where = failed_hunk("\n".join(output))
        if where is None:
            raise
        raise InputError(
            f"the patch {patch.name} does not apply: {where}",
            hint=f"the patch is {patch.path}; it has to fit the source exactly, after those before it",
        ) from error
