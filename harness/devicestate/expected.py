# SPDX-License-Identifier: GPL-2.0-or-later
"""What may differ between the states of two QEMUs that stand still, each with its reason.

A row names a device, a field (both as shell patterns) and an accelerator, and says
why QEMU changes that field on its way.  A number of bytes is never a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from harness.devicestate.fields import CMOS_REGISTERS


@dataclass(frozen=True, slots=True)
class ExpectedDifference:
    """A field that QEMU itself changes."""

    device: str
    field: str
    reason: str
    accelerator: str = "*"


EXPECTED: Final[tuple[ExpectedDifference, ...]] = tuple(
    ExpectedDifference(
        "mc146818rtc",
        f"cmos_data[[]*[]] {register}",
        "QEMU sets the clock's registers to the host's time whenever it saves them (rtc_pre_save); "
        "what the guest's clock is shifted by is in other fields",
    )
    for register in CMOS_REGISTERS.values()
)


def reason_for(
    device: str, field: str, accelerator: str, expected: Sequence[ExpectedDifference] = EXPECTED
) -> str | None:
    """Why a field may differ; None: it must not."""
    return next(
        (
            row.reason
            for row in expected
            if fnmatchcase(device, row.device)
            and fnmatchcase(field, row.field)
            and fnmatchcase(accelerator, row.accelerator)
        ),
        None,
    )
