# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that changes little of a page at a time: what XBZRLE sends as a difference, or not at all."""

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

    from harness.memory.formula import Generations, VerifyAnswer, Words


class Patterns(Advised):
    """Of each page little changes at a time, in one of eight ways.

    By the page's number: one bit; a word that is A, B, A, B; the same words written again, in pages that
    are all equal; zeros and noise in turn; the first and the last byte; four words; all of the page, and
    then three times one word more; eight bytes across the edge to the next page.
    """

    work_unit = "pages"

    kind: Literal["patterns"] = "patterns"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=0, le=10_000_000)] = 20_000
    """Pages a second that it writes to; 0: as fast as it can."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """How often each page was written to."""
        import numpy as np

        from harness.memory import patterns

        return patterns.writes_of(seed, noise // PAGE_SIZE, steps).astype(np.int64)

    def expected(self, seed: int, noise: int, steps: int = 0) -> VerifyAnswer:
        """What the guest must find after so many steps."""
        from harness.memory import patterns
        from harness.memory.formula import VerifyAnswer

        writes = patterns.writes_of(seed, noise // PAGE_SIZE, steps)
        return VerifyAnswer(len(writes), patterns.patterns_checksum(seed, writes))

    def owns(self, seed: int, noise: int, keys: Words) -> npt.NDArray[np.bool_]:
        """Every page that follows the formula, as those do that are as they began."""
        import numpy as np

        return np.ones(len(keys), np.bool_)
