# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the core file of a process that crashed is, or why there is none (core(5)).

    words = core_words(pid, dumped=True, limit="unlimited", keep=folder / "source.core")

A core file that the kernel has put into the file system is moved to ``keep``: it
belongs into the run folder, and nobody else would look for it.  The kernel's settings are
the machine's, and are left alone.
"""

from __future__ import annotations

import glob
import re
import shutil
from pathlib import Path
from typing import Final

_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
_USES_PID: Final = Path("/proc/sys/kernel/core_uses_pid")
_LIMIT: Final = re.compile(r"^Max core file size\s+(\S+)", re.MULTILINE)
_SPECIFIER: Final = re.compile(r"%(.)")
#: libvirt starts its programs there.
_FOLDER: Final = Path("/")


def core_limit(pid: int) -> str | None:
    """The soft limit of a process for its core file, as the kernel words it; None: it is gone."""
    try:
        text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = _LIMIT.search(text)
    return found[1] if found is not None else None


def expand(pattern: str, pid: int, *, uses_pid: bool) -> str:
    """The kernel's pattern as one for :mod:`glob`: the process id is known, the rest may be anything."""
    named = re.search(r"%[pP]", pattern) is not None
    text = _SPECIFIER.sub(lambda found: {"p": str(pid), "%": "%"}.get(found[1], "*"), pattern)
    return text if named or not uses_pid else f"{text}.{pid}"


def core_words(
    pid: int,
    *,
    dumped: bool,
    limit: str | None,
    keep: Path,
    pattern: str | None = None,
    uses_pid: bool | None = None,
) -> str:
    """What became of the core of a process that ended by a signal, in words.

    ``dumped``: the kernel says that it wrote one.  ``limit``: what :func:`core_limit` said while it
    lived.  ``pattern`` and ``uses_pid``: the kernel's, unless they are given.
    """
    said = _read(_PATTERN) if pattern is None else pattern
    if not dumped:
        if limit == "0":
            return "no core file: the limit for it is 0 (ulimit -c)"
        return f"no core file: the kernel wrote none (core_pattern {said!r}, limit {limit})"
    if said.startswith("|"):
        return f"its core went to the program {said[1:].split(' ', 1)[0]}"
    counted = _read(_USES_PID) not in ("", "0") if uses_pid is None else uses_pid
    place = str(_FOLDER / expand(said, pid, uses_pid=counted))
    files = [Path(name) for name in glob.glob(place)]  # noqa: PTH207 - the pattern is absolute
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return f"its core file is where core_pattern {said!r} puts it, and not to be seen from here"
    try:
        shutil.move(newest, keep)
    except OSError as error:
        return f"its core file is {newest} ({error.strerror})"
    return f"its core file is {keep.name} in the run folder"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
