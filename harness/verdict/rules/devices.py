# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices and vCPUs: what the source's QEMU saved of them is what the destination's has loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.devicestate.compare import Comparison
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import doubt, rule

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


@doubt(needs=(Comparison,))
def devices_acted_upon(_: JudgeInput, context: Context) -> str | None:
    """What a command has changed, and what is lost, look the same where nobody has heard what was sent."""
    untold = context.fact(Comparison).untold
    if not untold:
        return None
    more = f" (and {len(untold) - 1} more fields)" if len(untold) > 1 else ""
    return (
        "memory is right, but a command came to a QEMU whose devices should have stood still: "
        f"whether {untold[0]}{more} is its doing or the migration's cannot be told without a tap"
    )
