# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of all vCPUs and their APICs, as HMP shows them, held against each other.

Where a QEMU must not be asked to save its devices (see :mod:`harness.evidence.device_state`)
``info registers -a`` and ``info lapic`` can still be asked: they read, and change nothing.  On x86 the one
shows the general registers, flags, segments, descriptor tables, control and debug registers, EFER, and
the FPU's and the vectors' registers; the other shows each vCPU's local APIC, with the interrupts that
wait in it and those that are being served.  What they do not show, other MSRs and the TSC, is not compared.
"""

from __future__ import annotations

import re
from typing import Final

from harness.devicestate.compare import Comparison, Difference

_CPU: Final = re.compile(r"^CPU#(\d+)\s*$")
#: ``RAX=0000``, ``CS =0010 0000 ffffffff 00af9b00 DPL=0``, ``FPR0=0000 0000``: up to the next name.
_REGISTER: Final = re.compile(r"\[?\b([A-Z][A-Z0-9]*)\]?\s*=\s*(.*?)(?=\s+\[?[A-Z][A-Z0-9]*\s*=|\s*$)")

_APIC: Final = re.compile(r"^dumping local APIC state for CPU (\d+)\s*$")
#: ``LVT0  0x00010700 active-hi edge masked ...``, ``IRR  (none)``.
_APIC_LINE: Final = re.compile(r"^(LVT[A-Z0-9]*|SPIV|ICR2?|ESR|ISR|IRR)\s+(.*?)\s*$")
#: The timer's current count goes on, and is left out.
_APIC_TIMER: Final = re.compile(r"\b(DCR|initial_count)\s*=\s*(\w+)")
_APIC_BYTES: Final = re.compile(r"\b(APR|TPR|DFR|LDR|PPR) (0x[0-9a-f]+)")


def shown_registers(text: str) -> dict[tuple[int, str], str]:
    """Each register's value as it is shown, by vCPU and name."""
    found: dict[tuple[int, str], str] = {}
    cpu, apic = 0, False
    for line in text.splitlines():
        if header := _CPU.match(line.strip()) or _APIC.match(line.strip()):
            cpu, apic = int(header[1]), header.re is _APIC
        elif apic:
            found.update(((cpu, f"apic.{name}"), value) for name, value in _apic(line))
        else:
            found.update(((cpu, name), value.strip()) for name, value in _REGISTER.findall(line))
    return found


def _apic(line: str) -> list[tuple[str, str]]:
    """Registers of a local APIC in one of its lines."""
    if whole := _APIC_LINE.match(line):
        return [(whole[1], " ".join(whole[2].split()))]
    if line.startswith("Timer"):
        return _APIC_TIMER.findall(line)
    return _APIC_BYTES.findall(line)


def count_vcpus_shown(text: str) -> int:
    """How many vCPUs ``info registers -a`` has shown."""
    return sum(_CPU.match(line.strip()) is not None for line in text.splitlines())


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
    partly = f"only the vCPUs' registers and APICs: {why}"
    return Comparison(len({cpu for cpu, _ in here}), 0, found, partly=partly)
