# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that write to their memory while they are migrated: churn, rewrite."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import Share
from harness.scenario.workloads.base import Advised
from harness.units import PAGE_SIZE, Percent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.memory.formula import Generations, Words


class _Changing(Advised):
    """Its pages change with every step, and the number of steps says how."""

    work_unit = "pages"

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """Of the last step that wrote to each page."""
        from harness.memory import formula

        return formula.churn_generations(seed, noise // PAGE_SIZE, steps, frees=self.frees)

    def writes(self, seed: int, noise: int, steps: int) -> tuple[Words, Words]:
        """Loading included, as step 0.  A workload that gives no pages up writes to them instead."""
        from harness.memory import formula

        return formula.churn_writes(seed, noise // PAGE_SIZE, steps, frees=self.frees)

    def owns(self, seed: int, noise: int, keys: Words) -> npt.NDArray[np.bool_]:
        """Every page that follows the formula: one that it gives up does not stay as it was."""
        import numpy as np

        return np.ones(len(keys), np.bool_)


class Churn(_Changing):
    """Pages are written, freed and allocated again for as long as the migration runs."""

    stands_still = False
    frees = True

    kind: Literal["churn"] = "churn"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Pages a second that it writes, frees or allocates."""


class Rewrite(_Changing):
    """The same pages are written for as long as the migration runs; none is freed, none allocated."""

    kind: Literal["rewrite"] = "rewrite"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Pages a second that it writes."""
