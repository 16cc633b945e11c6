# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's findings, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from harness.doctor.checks import possible
from harness.doctor.finding import Diagnosis, Level
from harness.terminal import OutputConsole

_STYLES: Final = {Level.OK: "green", Level.NOTE: "yellow", Level.MISSING: "bold red"}


def diagnosis_document(findings: Sequence[Diagnosis]) -> dict[str, object]:
    """The findings as JSON."""
    return {
        "version": 1,
        "possible": possible(findings),
        "findings": [
            {
                "name": item.name,
                "level": item.level.value,
                "text": item.text,
                "advice": item.advice,
                "seconds": item.seconds,
            }
            for item in findings
        ],
    }


def print_findings(findings: Sequence[Diagnosis]) -> None:
    """One line each, what to do about it below."""
    findings = tuple(findings)
    console = OutputConsole()
    width = max(len(item.name) for item in findings)
    for item in findings:
        line = Text()
        line.append(f"{item.level.value:8}", _STYLES[item.level])
        line.append(f"{item.name:{width}}  {item.text}")
        if item.seconds is not None:
            line.append(f" (after {item.seconds:.1f} s)", "dim")
        console.print(line, soft_wrap=True)
        if item.advice:
            console.print(Text(" " * (8 + width + 2) + item.advice, "dim"), soft_wrap=True)
    console.print(
        "a run is possible" if possible(findings) else "no run is possible until what is missing is there"
    )
