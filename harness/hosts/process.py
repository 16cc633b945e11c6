# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process has cost so far: processor time by kind of thread, and its peak of resident memory.

Read out of /proc, so of a process of this machine, in this PID namespace.  QEMU
names its threads (libvirt asks it to): ``CPU 0/KVM``, ``CPU 0/TCG``, and for a
migration ``mig/src/main``, ``multifdsend_0`` and the like.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK")
_VCPU: Final = re.compile(r"CPU \d+|ALL CPUs")
_MIGRATION: Final = re.compile(r"mig/|live_migration|multifd|migration|return path")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time since the process began; bytes that were resident at its peak."""

    cpu: float
    vcpu: float
    migration: float
    peak_resident: int

    def since(self, earlier: Usage) -> Usage:
        """What was used after ``earlier``; the peak is of the whole life."""
        return Usage(
            self.cpu - earlier.cpu,
            self.vcpu - earlier.vcpu,
            self.migration - earlier.migration,
            self.peak_resident,
        )


NOTHING: Final = Usage(0.0, 0.0, 0.0, 0)


def usage_of(pid: int, proc: Path = Path("/proc")) -> Usage | None:
    """The usage of a process; None if it is gone, or is none of this machine's.

    Threads that have ended count in ``cpu`` but no longer in ``vcpu`` or
    ``migration``: ask while they live.
    """
    place = proc / str(pid)
    try:
        total = _seconds((place / "stat").read_text(encoding="utf-8", errors="replace"))
        peak = _peak((place / "status").read_text(encoding="utf-8", errors="replace"))
        threads = [entry / "stat" for entry in (place / "task").iterdir()]
    except OSError:
        return None
    vcpu = migration = 0.0
    for stat in threads:
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # a thread that has just ended
        name = text[text.index("(") + 1 : text.rindex(")")]
        if _VCPU.match(name):
            vcpu += _seconds(text)
        elif _MIGRATION.match(name):
            migration += _seconds(text)
    return Usage(total, vcpu, migration, peak)


def _seconds(stat: str) -> float:
    # After the name in parentheses, which may hold anything, utime and stime are the 12th and 13th.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _peak(status: str) -> int:
    match = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
