# SPDX-License-Identifier: GPL-2.0-or-later
"""Which disk images a QEMU of this machine holds for writing.

QEMU keeps others from an image by locks on single bytes of it (block/file-posix.c,
docs/system/images: "image locking"): byte 100 + N says that it uses permission N,
and permission 1 is to write.  They are locks of an open file description, so
/proc/locks names no process; the kernel lists them beside the open file in
/proc/PID/fdinfo (Documentation/filesystems/proc.rst).

A QEMU that waits for a migration, or has handed the guest over, holds none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

#: RAW_LOCK_PERM_BASE and the number of BLK_PERM_WRITE.
_WRITES: Final = 101

#: ``lock: 1: OFDLCK ADVISORY READ -1 fe:01:4711 100 101``: device and inode, first and last byte.
_LOCK: Final = re.compile(
    r"^lock:\s+\d+: (?:->\s*)?OFDLCK\s+\S+\s+\S+\s+\S+ (\w+:\w+:\d+) (\d+) (\d+|EOF)$", re.MULTILINE
)


def write_locks(fdinfo: str) -> Iterator[str]:
    """The file (device and inode) of each lock for writing among the lines of an open file."""
    for file, first, last in _LOCK.findall(fdinfo):
        if last == "EOF":
            # A lock on all of a file is another program's way, or another purpose.
            continue
        if int(first) <= _WRITES <= int(last):
            yield file


def held_for_writing(pid: int) -> dict[str, str]:
    """The images that process ``pid`` holds for writing: by device and inode, the path that it opened.

    One that has ended holds none.
    """
    found: dict[str, str] = {}
    process = Path(f"/proc/{pid}")
    for number in _open_files(process):
        try:
            text = (process / "fdinfo" / number).read_text(encoding="ascii", errors="replace")
            for file in write_locks(text):
                found[file] = str((process / "fd" / number).readlink())
        except OSError:
            # Closed meanwhile.
            continue
    return found


def _open_files(process: Path) -> Iterable[str]:
    try:
        return sorted(path.name for path in (process / "fdinfo").iterdir())
    except OSError:
        return ()
