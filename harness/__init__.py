# SPDX-License-Identifier: GPL-2.0-or-later
"""Free page migration testbed: lab, session and oracle around a patched QEMU and a real Linux guest.

Live migration may leave the guest's free pages behind. This package proves it, page by page, measures
what that saves, and catches ways of getting it wrong. The command is ``freepage`` (:mod:`harness.cli`).
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
