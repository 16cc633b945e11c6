# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor's ``info registers -a`` shows of a machine's processors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_CPU: Final = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_PLACE: Final = re.compile(r"\b(?:[ER]IP|PC)=([0-9a-f]+)")
_FLAGS: Final = re.compile(r"\b[ER]FL=([0-9a-f]{8,16})\b")
_HALTED: Final = re.compile(r"\bHLT=([01])\b")
#: Of x86's flags: interrupts are let in.
_INTERRUPTS: Final = 0x200


@dataclass(frozen=True, slots=True)
class Processor:
    """How one processor stood: ``address`` is its instruction's.

    ``halted`` and ``interrupts`` (they can wake it) are None where QEMU does not show them, as of other
    architectures than x86.
    """

    number: int
    address: int
    halted: bool | None
    interrupts: bool | None


def processors_of(registers: str) -> list[Processor]:
    """Read the monitor's text; a processor without an address in it is left out."""
    found = []
    parts = _CPU.split(registers)[1:]
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        place, halted, flags = _PLACE.search(text), _HALTED.search(text), _FLAGS.search(text)
        if place is not None:
            found.append(
                Processor(
                    int(number),
                    int(place[1], 16),
                    halted[1] == "1" if halted is not None else None,
                    bool(int(flags[1], 16) & _INTERRUPTS) if flags is not None else None,
                )
            )
    return found
