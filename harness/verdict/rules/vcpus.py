# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that were plugged in: all of them arrive, and the guest uses each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import rule

MISSING: Final = "vcpus-missing"


@dataclass(frozen=True, slots=True)
class VcpuCount:
    """vCPUs of the source's QEMU as the guest left, of the destination's, and online in the guest there."""

    source: int
    destination: int
    online: int


@rule("guest", {MISSING: "the guest has not the vCPUs that it had on the source"}, needs=(VcpuCount,))
def missing(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """By both QEMUs, and by the guest's own kernel."""
    count = context.fact(VcpuCount)
    if not count.source == count.destination == count.online:
        text = (
            f"the source had {count.source} vCPUs, the destination has {count.destination}, "
            f"and the guest uses {count.online}"
        )
        yield Finding(MISSING, "guest", text)
