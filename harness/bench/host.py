# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that a bench was made on, as far as numbers depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_host() -> dict[str, object]:
    """CPU, processors, memory, kernel, distribution, and how busy it was just now."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "distribution": _field("/etc/os-release", "PRETTY_NAME", separator="=").strip('"'),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _field(path: str, name: str, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""
