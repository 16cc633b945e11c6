# SPDX-License-Identifier: GPL-2.0-or-later
"""How one run of a campaign ended, and what that says of the fault.  Pure.

A fault counts as caught only if the run ends as its entry in the catalogue
says: with a verdict, by one of the rules that are named there.  A run that
ended without a verdict has caught nothing, unless the fault is known to kill a
QEMU and the error says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness.errors import ExitCode
from harness.faults.catalogue import Fault

_Word: TypeAlias = Literal["caught", "missed", "error"]


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How ``freepage run`` ended."""

    status: int
    verdict: str = ""
    rules: Sequence[str] = ()
    """The rules of the run's findings, the gravest first."""
    expected: str = "pass"
    """The verdict that the scenario is written to show."""
    accelerator: str = ""
    error: str = ""
    """What the command said, where there is no verdict."""


@dataclass(frozen=True, slots=True)
class FaultJudgement:
    """What a run says of a fault."""

    word: _Word
    rule: str = ""
    """The rule by which the fault was caught."""
    why: str = ""
    """How the run ended, if the fault was not caught."""


def judge_fault(fault: Fault, ended: RunEnd) -> FaultJudgement:
    """Whether the run has caught the fault that it was run with."""
    if not ended.verdict:
        if fault.verdict == "lost" and ended.status == ExitCode.ERROR and fault.says in ended.error:
            return FaultJudgement("caught", "lost")
        return FaultJudgement("error", why=_first_line(ended.error) or f"exit status {ended.status}")
    if ended.verdict == "fail":
        for rule in fault.rules:
            if rule in ended.rules:
                return FaultJudgement("caught", rule)
        return FaultJudgement(
            "missed", why=f"failed by {', '.join(ended.rules)} only, which is not what it breaks"
        )
    if ended.verdict == "inconclusive" == fault.verdict:
        return FaultJudgement("caught", "inconclusive")
    return FaultJudgement("missed", why=f"the verdict is {ended.verdict}")


def judge_control(ended: RunEnd) -> FaultJudgement:
    """Whether a control (a run without a fault) ended as its scenario says."""
    if ended.verdict and ended.verdict == ended.expected:
        return FaultJudgement("caught", ended.verdict)
    if not ended.verdict:
        return FaultJudgement("error", why=_first_line(ended.error) or f"exit status {ended.status}")
    rules = f" by {', '.join(ended.rules)}" if ended.rules else ""
    return FaultJudgement("missed", why=f"the verdict is {ended.verdict}{rules}, expected {ended.expected}")


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("freepage: ")] or text.splitlines()
    return lines[0].removeprefix("freepage: ") if lines else ""
