# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do nothing while they are migrated: idle, freed, fragmented."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from harness.scenario.values import MIB, Share, Size
from harness.scenario.workloads.base import Filling, Workload
from harness.units import Percent

if TYPE_CHECKING:
    from harness.memory.formula import Generations


class Idle(Workload):
    """The guest has booted and does nothing."""

    kind: Literal["idle"] = "idle"
    """Which workload."""
    keep: Size | None = None
    """Memory with known content that it owns and verifies afterwards."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps."""
        from harness.memory import formula

        return formula.unchanged(self.keep or 0)


class Freed(Filling):
    """Memory was filled with noise and freed again: free, but not zero."""

    kind: Literal["freed"] = "freed"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory. With the debug kernel, of what
    that leaves of it."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps; of the noise nothing."""
        from harness.memory import formula

        return formula.unchanged(self.keep)


class Fragmented(Filling):
    """As freed, but only every other page: free memory is single pages between pages in use."""

    kind: Literal["fragmented"] = "fragmented"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory. Half of it stays in use."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """Every even page."""
        from harness.memory import formula

        table = formula.unchanged(noise)
        table[1::2] = formula.FREED
        return table
