# SPDX-License-Identifier: GPL-2.0-or-later
"""Of a kernel that was built from source: whether it took its configuration, and what is kept of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from harness.arch import GUEST

_OPTION: Final = re.compile(r"^(CONFIG_\w+)=(.*)$")

#: Of the tree, what a module is built with.
_KEPT_FILES: Final = (".config", "Module.symvers", "tools/objtool/objtool")
_KEPT_FOLDERS: Final = (
    *("include", "scripts"),
    *(f"arch/{GUEST.kernel.source}/{name}" for name in ("include", "scripts")),
)
_DROPPED: Final = (".o", ".a", ".cmd", ".d")


def lost_options(wanted: Iterable[str], made: str) -> list[str]:
    """What a configuration does not have of these lines.

    Kconfig drops without a word what depends on something that is off.
    """
    has = set(made.splitlines())
    lost = []
    for line in wanted:
        match = _OPTION.match(line)
        if match and (f"# {match[1]} is not set" if match[2] == "n" else line) not in has:
            off = match[2] == "n" and not any(other.startswith(f"{match[1]}=") for other in has)
            if not off:
                lost.append(line)
    return lost


def keep_for_modules(trees: Iterable[Path], into: Path) -> None:
    """Copy what a module is built with, as distributions package it.

    ``trees``: the source, and where it was not built in place the folder of the build, whose files
    come on top.
    """
    for number, tree in enumerate(trees):
        for path in _kept(tree):
            target = into / path.relative_to(tree)
            # Of the two top Makefiles, the build's only leads to the source's.
            if number and path.parent == tree and path.name == "Makefile":
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)


def _kept(tree: Path) -> Iterator[Path]:
    yield from (tree / name for name in _KEPT_FILES if (tree / name).is_file())
    for place in (tree, tree / "arch" / GUEST.kernel.source):
        yield from (path for path in place.iterdir() if path.name.startswith(("Makefile", "Kbuild")))
    for name in _KEPT_FOLDERS:
        for path in (tree / name).rglob("*"):
            if (path.is_file() or path.is_symlink()) and path.suffix not in _DROPPED:
                yield path
