# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries a series of patches to another version of its source: which patch fits, which does not, and why.

    fits = check_series(read_series(series), tree)
    refresh_series(read_series(series), tree, folder)

Nothing is written to the tree: patches are applied to copies of the files that they touch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from harness.errors import InputError, MachineryError
from harness.toolchain.patches import MASTER, Patch, failed_hunk, series_of, touched_files
from harness.toolchain.run import find_program

_OFFSET = re.compile(r"^Hunk #\d+ succeeded at \d+ \(offset (-?\d+) lines?\)", re.M)
_FUZZ = re.compile(r"^Hunk #\d+ succeeded at (\d+) with fuzz", re.M)
_VERSION = re.compile(r"^\d+\.\d+(?:\.\d+)*$")
#: As many lines of context as ``patch`` itself lets go.
_FUZZ_LINES = 2


class HowItFits(StrEnum):
    """How a patch fits."""

    EXACT = "exact"
    MOVED = "moved"
    """All of its hunks fit, on other lines."""
    ROUGHLY = "roughly"
    """With other lines around: somebody has to look at it."""
    NOT = "not"


@dataclasses.dataclass(frozen=True)
class PatchFit:
    """How one patch of a series fits a tree in which those before it were applied as far as they fit."""

    patch: str
    fit: HowItFits
    why: str = ""
    """What is in the way, or what to look at."""


def tree_version(tree: Path) -> str:
    """The version of a QEMU source tree, by its file VERSION; raises :class:`InputError` if it is none."""
    try:
        version = (tree / "VERSION").read_text("utf-8").strip()
    except OSError as error:
        raise InputError(f"{tree} is not a QEMU source tree: VERSION: {error.strerror}") from error
    if not _VERSION.match(version):
        raise InputError(f"{tree}/VERSION: '{version[:40]}' is no version")
    return version


def series_name(tree: Path) -> str:
    """The name of the series that belongs to a tree: ``10.2`` for 10.2.2, ``master`` for 10.2.50."""
    return series_of(tree_version(tree))


def nearest_series(folder: Path, tree: Path) -> Path:
    """The ``series`` file for the tree, or that of the newest version before it, or the oldest of all."""

    def number(name: str) -> tuple[float, ...]:
        return (math.inf,) if name == MASTER else tuple(int(part) for part in name.split("."))

    names = (path.parent.name for path in folder.glob("*/series"))
    known = sorted((name for name in names if name == MASTER or _VERSION.match(name)), key=number)
    if not known:
        raise InputError(f"there is no series in {folder}")
    before = [name for name in known if number(name) <= number(series_name(tree))]
    return folder / (before or known[:1])[-1] / "series"


def check_series(patches: Sequence[Patch], tree: Path, below: Sequence[Patch] = ()) -> tuple[PatchFit, ...]:
    """How each patch fits, in order; what fits of a patch is applied before the next one is tried.

    ``below``: what the tree has before them.
    """
    with tempfile.TemporaryDirectory() as name:
        stage = _Stage(tree, Path(name))
        for patch in below:
            stage.apply(patch)
        return tuple(stage.apply(patch) for patch in patches)


def refresh_series(
    patches: Sequence[Patch], tree: Path, folder: Path, below: Sequence[Patch] = ()
) -> tuple[PatchFit, ...]:
    """Write the series, made exact for the tree, into ``folder``; nothing if a patch does not fit.

    A patch that fits exactly is written as it is.  ``below``: what the tree has before them.  Raises
    :class:`InputError` if ``folder`` has a series.
    """
    if (folder / "series").exists():
        raise InputError(f"{folder} holds a series", hint="move it away, or name another folder by --out")
    fits: list[PatchFit] = []
    texts: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        stage = _Stage(tree, Path(name))
        for patch in below:
            stage.apply(patch)
        for patch in patches:
            before = stage.contents(patch)
            fits.append(stage.apply(patch))
            if fits[-1].fit is HowItFits.EXACT:
                texts[patch.name] = patch.content
            else:
                texts[patch.name] = _rewritten(patch, before, stage.contents(patch))
    if all(fit.fit is not HowItFits.NOT for fit in fits):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_bytes(text)
        listing = "".join(f"{file}\n" for file in texts)
        (folder / "series").write_text(f"# SPDX-License-Identifier: GPL-2.0-or-later\n{listing}", "utf-8")
    return tuple(fits)


class _Stage:
    """Copies of those files of a tree that patches touch."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree = tree
        self._folder = folder
        self._copied: set[str] = set()

    def apply(self, patch: Patch) -> PatchFit:
        """Apply as much of a patch as fits."""
        missing = [name for name in self._names(patch) if not (self._folder / name).exists()]
        for fuzz in (0, _FUZZ_LINES):
            status, output = self._run(patch, "--dry-run", f"-F{fuzz}")
            if status == 0:
                self._run(patch, f"-F{fuzz}")
                return _fitting(patch, output, fuzz > 0)
        self._run(patch, f"-F{_FUZZ_LINES}")
        return PatchFit(patch.name, HowItFits.NOT, self._why(patch, missing, output))

    def contents(self, patch: Patch) -> Mapping[str, bytes | None]:
        """What the files that a patch touches hold now; None: there is no such file."""
        return {
            name: (self._folder / name).read_bytes() if (self._folder / name).exists() else None
            for name in self._names(patch)
        }

    def _names(self, patch: Patch) -> tuple[str, ...]:
        names = touched_files(patch.content.decode("utf-8", errors="replace"), patch.name)
        for name in names:
            source = self._tree / name
            if name not in self._copied and source.is_file():
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, self._folder / name)
            self._copied.add(name)
        return names

    def _run(self, patch: Patch, *options: str) -> tuple[int, str]:
        # --forward: a patch that is there already is refused, and not taken back.
        command = [str(find_program("patch")), "-p1", "--batch", "--forward", "--no-backup-if-mismatch"]
        done = subprocess.run(
            [*command, "-r", "-", *options],
            input=patch.content,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output = done.stdout.decode("utf-8", errors="replace")
        if done.returncode > 1:
            raise MachineryError(f"patch: {output.strip()[-200:]}")
        return done.returncode, output

    def _why(self, patch: Patch, missing: Sequence[str], output: str) -> str:
        """The first thing in the way; a file that has gone is looked for by its name."""
        added = _added(patch)
        for name in missing:
            if name in added:
                continue
            elsewhere = sorted(
                str(path.relative_to(self._tree))
                for path in self._tree.rglob(Path(name).name)
                if path.is_file() and path.parts[len(self._tree.parts)] not in ("build", "subprojects")
            )
            where = f"; there is {', '.join(elsewhere[:3])}" if elsewhere else ""
            return f"file {name} is not in the tree{where}"
        return failed_hunk(output) or output.strip().splitlines()[-1]


def _added(patch: Patch) -> set[str]:
    lines = patch.content.decode("utf-8", errors="replace").splitlines()
    return {
        after[6:].split("\t")[0]
        for before, after in itertools.pairwise(lines)
        if before.startswith("--- /dev/null") and after.startswith("+++ b/")
    }


def _fitting(patch: Patch, output: str, fuzzy: bool) -> PatchFit:
    if fuzzy:
        places = ", ".join(_FUZZ.findall(output))
        return PatchFit(patch.name, HowItFits.ROUGHLY, f"other lines around, at line {places}")
    moved = [abs(int(lines)) for lines in _OFFSET.findall(output)]
    if moved:
        return PatchFit(patch.name, HowItFits.MOVED, f"by up to {max(moved)} lines")
    return PatchFit(patch.name, HowItFits.EXACT)


def _rewritten(patch: Patch, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bytes:
    """The patch's own words, and what it does here."""
    words = patch.content.split(b"\ndiff --git ", 1)[0].split(b"\n--- a/", 1)[0]
    parts = [words.rstrip(b"\n"), b"\n\n"]
    parts.extend(_diff(name, content, after[name]) for name, content in before.items())
    return b"".join(parts)


def _diff(name: str, before: bytes | None, after: bytes | None) -> bytes:
    if before == after:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        old.write_bytes(before or b"")
        new.write_bytes(after or b"")
        labels = (
            "/dev/null" if before is None else f"a/{name}",
            "/dev/null" if after is None else f"b/{name}",
        )
        command = [
            str(find_program("diff")),
            "-up",
            "--label",
            labels[0],
            "--label",
            labels[1],
            str(old),
            str(new),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode > 1:
        raise MachineryError(f"diff of {name} failed")
    mode = (
        "new file mode 100644\n" if before is None else "deleted file mode 100644\n" if after is None else ""
    )
    return f"diff --git a/{name} b/{name}\n{mode}".encode() + done.stdout
