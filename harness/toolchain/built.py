# SPDX-License-Identifier: GPL-2.0-or-later
"""What the toolchain's cache holds already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from harness import accel
from harness.arch import HOST
from harness.toolchain.cache import Cache

BUILT_PARTS: Final = ("qemu", "kernel", "module", "image", "firmware")


def _entries(cache: Cache, kind: str) -> list[Path]:
    """What the cache holds of one kind, newest last.  Names with a dot are unfinished."""
    folder = cache.root / "store" / kind
    found = [path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def built_parts(cache: Cache) -> dict[str, list[Path]]:
    """The entries of each kind that a run is made of, newest last."""
    return {kind: _entries(cache, kind) for kind in BUILT_PARTS}


def built_machine(cache: Cache) -> accel.ProbeMachine | None:
    """What there is to try KVM with; None when nothing is built."""
    return machine_of(built_parts(cache))


def machine_of(built: dict[str, list[Path]]) -> accel.ProbeMachine | None:
    """The newest QEMU and kernel of the cache, for the probe."""
    if not (built["qemu"] and built["kernel"] and built["firmware"]):
        return None
    folder = built["qemu"][-1]
    # A kernel that was built here, and not unpacked, has another place for its image.
    kernels = [
        path for entry in built["kernel"] for path in sorted(entry.glob(f"boot/{HOST.image_name('*')}"))
    ]
    if not kernels:
        return None
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return accel.ProbeMachine(
        folder / HOST.qemu_binary, str(facts["sha256"]), (built["firmware"][-1],), kernels[-1]
    )
