# SPDX-License-Identifier: GPL-2.0-or-later
"""What must exist before a run: QEMU, kernel, module, image; built when missing, kept by content.

    toolchain = Toolchain(events=stream)
    qemu = toolchain.qemu("patched")
    kernel = toolchain.kernel()
    image = toolchain.image(kernel)

When everything is built this costs a few milliseconds and no network.
"""

from __future__ import annotations

from harness.toolchain.image import GuestImage
from harness.toolchain.kernel import Kernel
from harness.toolchain.qemu import QemuBinary
from harness.toolchain.toolchain import PARTS, Built, Toolchain, build_all

__all__ = ["PARTS", "Built", "GuestImage", "Kernel", "QemuBinary", "Toolchain", "build_all"]
