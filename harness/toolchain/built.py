# SPDX-License-Identifier: GPL-2.0-or-later
"""What the toolchain's cache holds already."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

from harness import accel
from harness.arch import GUEST, foreign_endings
from harness.toolchain.cache import Cache, sums_file
from harness.toolchain.sums import Sums

BUILT_PARTS: Final = ("qemu", "kernel", "module", "image", "firmware")


def _entries(cache: Cache, kind: str) -> list[Path]:
    """What the cache holds of one kind, newest last.  Names with a dot are unfinished."""
    folders = (layer / "store" / kind for layer in cache.layers)
    found = [path for folder in folders for path in folder.glob("*")]
    found = [path for path in found if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def built_parts(cache: Cache) -> dict[str, list[Path]]:
    """The entries of each kind that a run is made of, newest last."""
    return {kind: _entries(cache, kind) for kind in BUILT_PARTS}


def damaged_parts(built: dict[str, list[Path]]) -> dict[str, list[str]]:
    """By kind: what is wrong with entries, as far as it is cheap to see."""
    found: dict[str, list[str]] = {}
    for kind, places in built.items():
        for place in places:
            known = Sums.load(sums_file(place))
            wrong = known.quick(place) if known is not None else None
            if wrong is None and kind == "qemu" and not (place / "facts.json").is_file():
                wrong = "facts.json is gone"
            if wrong is not None:
                found.setdefault(kind, []).append(f"{place.name}: {wrong}")
    return found


def built_machine(cache: Cache) -> accel.ProbeMachine | None:
    """What there is to try KVM with; None when nothing is built."""
    return machine_of(built_parts(cache))


def machine_of(built: dict[str, list[Path]]) -> accel.ProbeMachine | None:
    """The newest QEMU and kernel of the cache, for the probe."""
    if not (built["qemu"] and built["kernel"] and built["firmware"]):
        return None
    # A kernel that was built here, and not unpacked, has another place for its image.
    kernels = [
        path for entry in built["kernel"] for path in sorted(entry.glob(f"boot/{GUEST.image_name('*')}"))
    ]
    # Those of other architectures are in there, too.
    kernels = [path for path in kernels if not path.name.endswith(foreign_endings(GUEST))]
    if not kernels:
        return None
    foreign = [
        entry
        for entry in built["qemu"]
        if list(entry.glob("qemu-system-*")) and not (entry / GUEST.qemu_binary).exists()
    ]
    for folder in reversed([entry for entry in built["qemu"] if entry not in foreign]):
        # One that is damaged is of no use here; who needs it makes it anew.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            return accel.ProbeMachine(
                folder / GUEST.qemu_binary, str(facts["sha256"]), (built["firmware"][-1],), kernels[-1]
            )
    return None
