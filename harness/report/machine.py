# SPDX-License-Identifier: GPL-2.0-or-later
"""What a result says of the guest's machine."""

from __future__ import annotations

from harness.report.part import Part


class MachineReport(Part):
    """The guest's machine, as both QEMUs make it."""

    type: str
    """Machine type; where the scenario says a short name, the version that it stands for if that is known."""
    cpu: str | None
    """CPU model and features as the scenario says them; null: the testbed's choice."""
    cpu_lacks: list[str]
    """Features of that CPU's model that the accelerator cannot give a guest, so that it runs without."""
