# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of all vCPUs, as HMP's ``info registers -a`` shows them, held against each other.

Where a QEMU must not be asked to save its devices (see :mod:`harness.evidence.device_state`)
this can still be asked: it reads, and changes nothing.  On x86 it shows the general
registers, flags, segments, descriptor tables, control and debug registers, EFER, and
the FPU's and the vectors' registers.  What it does not show, other MSRs, the TSC and the
APIC, is not compared.
"""

from __future__ import annotations

import re
from typing import Final

from harness.devicestate.compare import Comparison, Difference

_CPU: Final = re.compile(r"^CPU#(\d+)\s*$")
#: ``RAX=0000``, ``CS =0010 0000 ffffffff 00af9b00 DPL=0``, ``FPR0=0000 0000``: up to the next name.
_REGISTER: Final = re.compile(r"\[?\b([A-Z][A-Z0-9]*)\]?\s*=\s*(.*?)(?=\s+\[?[A-Z][A-Z0-9]*\s*=|\s*$)")


def shown_registers(text: str) -> dict[tuple[int, str], str]:
    """Each register's value as it is shown, by vCPU and name."""
    found: dict[tuple[int, str], str] = {}
    cpu = 0
    for line in text.splitlines():
        if header := _CPU.match(line.strip()):
            cpu = int(header[1])
            continue
        for name, value in _REGISTER.findall(line):
            found[cpu, name] = value.strip()
    return found


def compare_registers(source: str, destination: str, why: str) -> Comparison | str:
    """Compare what two QEMUs show.  ``why``: why no more than that was compared."""
    here, there = shown_registers(source), shown_registers(destination)
    if not here or not there:
        return why
    found = tuple(
        Difference("cpu", cpu, name, here.get((cpu, name), "absent"), there.get((cpu, name), "absent"))
        for cpu, name in sorted(here.keys() | there.keys())
        if here.get((cpu, name)) != there.get((cpu, name))
    )
    return Comparison(len({cpu for cpu, _ in here}), 0, found, partly=f"only the vCPUs' registers: {why}")
