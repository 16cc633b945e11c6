# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that wait for interrupts: interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import MIB, Size
from harness.scenario.workloads.base import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.guestview.report import Aftermath
    from harness.memory.formula import Generations


class Interrupts(Workload):
    """A timer, a disk and another processor are waited for, one request at a time, and nobody polls.

    An interrupt that is lost ends its chain for good.
    """

    work_unit = "interrupts"
    stands_still = False
    writes_disk = True
    reports = True

    kind: Literal["interrupts"] = "interrupts"
    """Which workload."""
    disk: Annotated[Size, Field(ge=1 * MIB, le=1024 * MIB)] = 1 * MIB
    """How large its disk is."""
    patience: Annotated[int, Field(ge=1, le=600)] = 5
    """A chain that makes no step for so many seconds after the guest has moved is stuck."""
    keep: Size = 8 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    @property
    def disk_bytes(self) -> int:
        """Its ``disk``."""
        return self.disk

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps."""
        from harness.memory import formula

        return formula.unchanged(self.keep)

    def facts(self, aftermath: Aftermath) -> Sequence[object]:
        """Which of its chains go on."""
        from harness.guestview.interrupts import review

        return (review(aftermath.after, self.patience),)
