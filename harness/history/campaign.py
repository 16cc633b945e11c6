# SPDX-License-Identifier: GPL-2.0-or-later
"""A campaign of faults as a batch: a fault that was caught is a run that failed as it should."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from harness.errors import ExitCode
from harness.faults.campaign import CampaignReport, CampaignRow
from harness.history.read_folders import FoundBatch
from harness.history.record import Batch, KeptRun
from harness.report.finished import RunOutcome

_FAULT_OUTCOMES: Final[Mapping[str, RunOutcome]] = {"caught": "expected", "missed": "fail", "error": "error"}
_CONTROL_OUTCOMES: Final[Mapping[str, RunOutcome]] = {"caught": "pass", "missed": "fail", "error": "error"}
_STATUS: Final = {"fail": ExitCode.FAIL, "error": ExitCode.ERROR}


def campaign_batch(
    report: CampaignReport, began: datetime, seconds: float, status: int, command: str
) -> FoundBatch:
    """What a campaign found.  ``seconds``: of the whole command; ``status``: its exit status."""
    faults = (_run(row, f"fault {row.job}", _FAULT_OUTCOMES, began) for row in report.faults)
    controls = (_run(row, row.job, _CONTROL_OUTCOMES, began) for row in report.controls)
    batch = Batch("faults", "", command, began, seconds=round(seconds, 3), exit_status=status)
    return FoundBatch(batch, (*controls, *faults))


def _run(row: CampaignRow, name: str, outcomes: Mapping[str, RunOutcome], began: datetime) -> KeptRun:
    outcome = outcomes.get(row.word, "error")
    return KeptRun(
        name=name,
        scenario=row.scenario,
        outcome=outcome,
        exit_status=_STATUS.get(outcome, ExitCode.PASS),
        reason=row.why,
        began=began,
        seconds=row.seconds,
        rule=row.rule or None,
        accelerator=row.accelerator,
        folder=row.run or None,
    )
