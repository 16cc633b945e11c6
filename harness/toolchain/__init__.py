# SPDX-License-Identifier: GPL-2.0-or-later
"""What must exist before a run: QEMU, kernel, module, image; built when missing, kept by content."""
