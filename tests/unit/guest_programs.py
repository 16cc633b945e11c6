# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's programs, made for this machine by their own Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

#: Whatever a test has the programs do, they may touch no byte that is not theirs.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
SOURCES = Path(__file__).parents[2] / "vm-images" / "guest"


def run_make(*words: str | Path, sources: Path = SOURCES) -> None:
    """Run make in the folder of the sources; without make or gcc the test is skipped."""
    for program in ("make", "gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    # Not those of a make that runs the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-C", sources, f"-j{os.cpu_count() or 1}", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def made(
    folder: Path,
    *names: str,
    defines: Mapping[str, str] | None = None,
    more: Iterable[Path] = (),
    words: Iterable[str] = (),
    sources: Path = SOURCES,
    sanitized: bool = False,
) -> Path:
    """Make these programs in a folder; returns it.

    ``defines``: other places than those of a guest; ``more``: files for the program ``workload``;
    ``words``: what else make is told; ``sanitized``: with ASan and UBSan, which takes twice as long.
    """
    flags = SANITIZERS if sanitized else ""
    options = [f"O={folder}", f"CFLAGS=-O1 {flags}", f"LDFLAGS={flags}"]
    if defines:
        places = " ".join(f"-D{name}='\"{value}\"'" for name, value in defines.items())
        options.append(f"CPPFLAGS={places}")
    if files := [str(path) for path in more]:
        options.append(f"MORE={' '.join(files)}")
    run_make(*options, *words, *(folder / name for name in names), sources=sources)
    return folder
