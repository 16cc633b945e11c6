# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel modules that a scenario's devices need in the guest, as an archive behind its image."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.cross import compilers
from harness.toolchain.image import load_order, module_entry
from harness.toolchain.kernel import Kernel

_BUILD = 1  # changes when what is done below changes


def lacking_module(kernel: Kernel, names: Sequence[str]) -> str | None:
    """The first of these modules that the kernel neither has built in nor as a file."""
    files, builtin = kernel.module_files(), kernel.builtin()
    return next((name for name in names if name not in files and name not in builtin), None)


def build_device_modules(cache: Cache, kernel: Kernel, names: Sequence[str]) -> Path | None:
    """The archive: these modules and what they need; init loads them in order.  None: all is built in."""
    files, tools = kernel.module_files(), compilers(cache)
    order = load_order(names, files, kernel.builtin())
    if not order:
        return None

    def build(folder: Path) -> None:
        with (
            cache.events.step("device modules", kernel=kernel.release),
            tempfile.TemporaryDirectory() as work,
        ):
            entries = [module_entry(name, files[name], Path(work), tools) for name in order]
            entries.append(cpio.file("/etc/devices.list", "".join(f"{name}\n" for name in order).encode()))
            cpio.write_cpio(folder / "modules.cpio", cpio.with_parents(entries))

    key = key_of(build=_BUILD, kernel=kernel.digest, modules=order)
    return cache.get("modules", key, build, what="the devices' modules", space=50 * MIB) / "modules.cpio"
