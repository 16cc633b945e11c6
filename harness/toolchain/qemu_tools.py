# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that come with QEMU and serve a guest's devices, built from the same tree.

What is wrong with them is mended in ``qemu-patches/tools``: they are not what is under test.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from harness.toolchain.cache import MIB, key_of
from harness.toolchain.patches import read_series
from harness.toolchain.qemu import PATCHED, QemuBuilder
from harness.toolchain.variant import PLAIN_BUILD

#: Their names, and what QEMU's build makes of them where.
QEMU_TOOLS: Final = {
    "qemu-img": "qemu-img",
    "qemu-storage-daemon": "storage-daemon/qemu-storage-daemon",
    "vhost-user-bridge": "tests/vhost-user-bridge",
}


def build_qemu_tools(builder: QemuBuilder) -> Path:
    """The folder that has them."""
    fixes = builder.patch_folder / "tools" / builder.source.series / "series"
    own = [patch.path for patch in read_series(fixes)] if fixes.exists() else []
    patches = builder.patches(PATCHED, own)
    key = key_of(qemu=builder.key(patches), tools=QEMU_TOOLS)

    def build(folder: Path) -> None:
        with (
            builder.cache.events.step("qemu tools", version=builder.source.version) as step,
            builder.built(patches, PLAIN_BUILD, tuple(QEMU_TOOLS.values()), step.note) as made,
        ):
            for name, place in QEMU_TOOLS.items():
                shutil.copy2(made / place, folder / name)

    return builder.cache.get("qemu-tools", key, build, what="QEMU's tools", space=200 * MIB)
