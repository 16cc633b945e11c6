# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about devices and vCPUs: what the source saved is what the destination has loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.devicestate.compare import Comparison
from harness.verdict.finding import Finding

RULE: Final = "device-state-differs"

#: So many differences are told one by one; a device that is wrong as a whole has hundreds.
_TOLD: Final = 8


def device_state_findings(comparison: Comparison) -> Iterator[Finding]:
    """A finding for each device that differs without a reason: its first fields, and how many there are."""
    devices: dict[tuple[str, int], list[str]] = {}
    for difference in comparison.wrong:
        key = difference.device, difference.instance
        devices.setdefault(key, []).append(str(difference))
    for texts in devices.values():
        more = f" (and {len(texts) - _TOLD} more fields)" if len(texts) > _TOLD else ""
        yield Finding(RULE, "device", "; ".join(texts[:_TOLD]) + more, len(texts))
