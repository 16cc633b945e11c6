# SPDX-License-Identifier: GPL-2.0-or-later
"""What a migration had on, as both of its QEMUs said while it was under way."""

from __future__ import annotations

from typing import Any

from harness.report.part import Part


class SideModes(Part):
    """One QEMU's own word on its modes."""

    capabilities: list[str]
    """The capabilities that were on."""
    parameters: dict[str, Any]
    """All parameters, with their values."""
