# SPDX-License-Identifier: GPL-2.0-or-later
"""One compared block as its rules see it: for each page, what has become of it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.image import Flags
from harness.verdict.case import BlockState, JudgeInput
from harness.verdict.log import Clearings


@dataclass(frozen=True, eq=False)
class BlockView:
    """All flags are by page of the block."""

    case: JudgeInput
    state: BlockState
    clearings: Clearings
    differs: Flags
    cleared: Flags
    """Some answer took its dirty bit away."""
    sent: Flags
    """Sent at least once; nothing where neither record nor tap says so."""
    skip: Flags
    """Cleared, and never sent: left behind, rightly or not."""
    known: Flags
    """Of those: it is known whether they changed since their request."""
    unchanged: Flags
    """Of those: they did not."""
    believed: Flags
    """Of those: by the device's own account, where the scenario is not strict."""
    owned: Flags
    """Reported by some answer, though the workload had it all the while."""
    proven: Flags
    """Left behind, and shown to be right."""
