# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that read their clocks: clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import MIB, Size
from harness.scenario.workloads.base import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.guestview.report import Aftermath
    from harness.memory.formula import Generations


class Clocks(Workload):
    """Timers fire, and every clock of the guest is read each time; the host holds them against its own."""

    work_unit = "timers"
    stands_still = False
    reports = True
    punctual = True

    kind: Literal["clocks"] = "clocks"
    """Which workload."""
    every_ms: Annotated[int, Field(ge=1, le=1000)] = 5
    """Milliseconds from one timer to the next."""
    keep: Size = 8 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps."""
        from harness.memory import formula

        return formula.unchanged(self.keep)

    def facts(self, aftermath: Aftermath) -> Sequence[object]:
        """What its clocks showed, held against the host's."""
        from harness.guestview.clocks import review

        return (review(aftermath),)
