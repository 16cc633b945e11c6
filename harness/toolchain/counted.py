# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that counts how often each of its lines is reached (gcov): how it is built, and what goes with it.

Such a program writes its counters when it exits (``.gcda``, a file for each object).  What they count is
in the compiler's notes (``.gcno``), which are kept beside the program: the build folder is another build's
by then.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.toolchain.variant import with_option

#: What QEMU's configure calls it.
OPTION: Final = "--enable-gcov"
#: As PLAIN_BUILD, and it counts.
COUNTED: Final = with_option("counted", OPTION)
#: Below a folder with a QEMU of ours: the notes.
NOTES: Final = "notes"
#: By this libgcov is told where to leave the counters: before the whole path of each object.
COUNTERS_VARIABLE: Final = "GCOV_PREFIX"
#: Whose lines are asked for: the beginnings of objects' names, as meson makes them of the source's path.
_OF_INTEREST: Final = ("migration_", "hw_")


def counts_lines(program: Path) -> bool:
    """Whether a program was built to count its lines."""
    try:
        with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(COUNTERS_VARIABLE.encode()) >= 0
    except (OSError, ValueError):
        return False


def objects(folder: Path, suffix: str) -> Iterator[Path]:
    """The notes, or counters, of the objects that are of interest, anywhere below a folder; in order."""
    for path in sorted(folder.rglob(f"*{suffix}")):
        if path.name.startswith(_OF_INTEREST):
            yield path


def object_name(path: Path) -> Path:
    """What notes and counters of one object have in common: ``libsystem.a.p/migration_ram.c``."""
    return Path(path.parent.name, path.stem)


def keep_notes(build: Path, folder: Path) -> None:
    """Copy the notes of a build's objects to ``folder``."""
    for path in objects(build, ".gcno"):
        place = folder / object_name(path).with_name(path.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
