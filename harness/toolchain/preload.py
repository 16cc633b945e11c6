# SPDX-License-Identifier: GPL-2.0-or-later
"""The library that hides KVM's manual dirty log protection from a QEMU: see its source."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.toolchain.cache import Cache, file_digest, key_of
from harness.toolchain.run import run_program

#: What the library says in QEMU's log, once it has been asked.
HIDDEN: Final = "KVM's manual dirty log protection is hidden from this QEMU"

_FLAGS: Final = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")


def no_manual_protect(cache: Cache, source: Path) -> Path:
    """Build the library, or find it."""
    key = key_of(source=file_digest(source), flags=_FLAGS)

    def build(folder: Path) -> None:
        library = folder / "no_manual_protect.so"
        run_program(
            ["gcc", *_FLAGS, "-o", library, source, "-ldl"], what=f"compile {source.name}", cwd=folder
        )

    return cache.get("preload", key, build, what="the library for KVM") / "no_manual_protect.so"
