# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU has of its own, memory and open files: what a migration leaves shows only after many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.events import Event

_ANONYMOUS: Final = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


def own_memory(history: Sequence[Event], side: str = "source", proc: Path = Path("/proc")) -> int | None:
    """Bytes of the QEMU that was attached last on ``side``; None: it is gone, or on another machine.

    Anonymous pages alone (proc(5)): a lab's guest has its memory in a file.
    """
    try:
        found = _ANONYMOUS.search((_of(history, side, proc) / "status").read_text("ascii", "replace"))
    except OSError:
        return None
    return int(found[1]) << 10 if found is not None else None


def own_files(history: Sequence[Event], side: str = "source", proc: Path = Path("/proc")) -> int | None:
    """How many files and sockets that QEMU has open; None as above."""
    try:
        return sum(1 for _ in (_of(history, side, proc) / "fd").iterdir())
    except OSError:
        return None


def _of(history: Sequence[Event], side: str, proc: Path) -> Path:
    attached = [one for one in history if one.kind == "qemu-attached" and one.source == f"{side}.qmp"]
    return proc / str(attached[-1].data.get("pid") if attached else None)
