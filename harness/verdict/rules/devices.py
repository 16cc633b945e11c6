# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices and vCPUs: what the source's QEMU saved of them is what the destination's has loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.devicestate.compare import Comparison
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import rule

DIFFERS: Final = "device-state-differs"

#: So many differences are told one by one; a device that is wrong as a whole has hundreds.
_TOLD: Final = 8


@rule(
    "device",
    {DIFFERS: "a field of a device or vCPU is not on the destination as the source saved it"},
    needs=(Comparison,),
)
def device_state_differs(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """A finding for each device: its first fields that differ without a reason, and how many there are."""
    devices: dict[tuple[str, int], list[str]] = {}
    for difference in context.fact(Comparison).wrong:
        key = difference.device, difference.instance
        devices.setdefault(key, []).append(str(difference))
    for texts in devices.values():
        more = f" (and {len(texts) - _TOLD} more fields)" if len(texts) > _TOLD else ""
        yield Finding(DIFFERS, "device", "; ".join(texts[:_TOLD]) + more, len(texts))
