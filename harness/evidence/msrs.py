# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the model specific registers of a guest's processors: its agent does, by ``/dev/cpu/N/msr``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.errors import GuestRefused
from harness.events import Deadline
from harness.guest.control import GuestControl
from harness.guestview.msrs import STEADY, VcpuMsrs

#: Of a guest that answers at all.
_ANSWER_SECONDS: Final = 60.0
#: For how many the agent takes in one question.
_MOST: Final = 32


def read_msrs(control: GuestControl, vcpus: int) -> Sequence[VcpuMsrs] | None:
    """By processor; None: the guest's kernel has no way to read them.

    Raises :class:`harness.errors.GuestLost` if it does not answer.
    """
    deadline = Deadline(_ANSWER_SECONDS, "the guest's registers")
    try:
        return [_of(control, cpu, deadline) for cpu in range(vcpus)]
    except GuestRefused:
        return None


def _of(control: GuestControl, cpu: int, deadline: Deadline) -> VcpuMsrs:
    numbers, found = tuple(STEADY.values()), list[object]()
    for first in range(0, len(numbers), _MOST):
        some = numbers[first : first + _MOST]
        said = control.call("msr-values", cpu, *some, deadline=deadline)["values"]
        assert isinstance(said, list)
        found += said
    return {
        name: int(value, 16) if isinstance(value, str) else None
        for name, value in zip(STEADY, found, strict=True)
    }
