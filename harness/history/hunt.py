# SPDX-License-Identifier: GPL-2.0-or-later
"""A hunt as a batch: each thing found is a run that failed, under the name of its signature.

The runs that went well are not kept one by one: no two of a hunt's scenarios are alike, so they say nothing
about any scenario.  How many there were is in the batch.
"""

from __future__ import annotations

from datetime import datetime

from harness.errors import ExitCode
from harness.history.read_folders import FoundBatch
from harness.history.record import Batch, KeptRun
from harness.hunt.hunter import FoundFailure, HuntReport


def hunt_batch(report: HuntReport, began: datetime, seconds: float, status: int, command: str) -> FoundBatch:
    """What a hunt found.  ``seconds``: of the whole command; ``status``: its exit status."""
    ends = {f"runs {word}": str(count) for word, count in sorted(report.words.items())}
    batch = Batch(
        "hunt",
        "",
        command,
        began,
        seed=report.seed,
        seconds=round(seconds, 3),
        exit_status=status,
        host={"runs": str(report.runs), **ends, **_lines(report)},
    )
    return FoundBatch(batch, tuple(_run(one, report.qemu, began) for one in report.found))


def _lines(report: HuntReport) -> dict[str, str]:
    """How much of QEMU was reached, where that was counted."""
    if report.code is None:
        return {}
    parts = report.code.parts().values()
    return {f"lines reached of {part.file}/": f"{part.reached} of {part.lines}" for part in parts}


def _run(found: FoundFailure, qemu: str, began: datetime) -> KeptRun:
    return KeptRun(
        name=f"hunt {found.signature}",
        scenario="hunt",
        outcome="fail",
        exit_status=ExitCode.FAIL,
        reason=found.text,
        began=began,
        seconds=0.0,
        rule=found.signature,
        qemu=qemu,
        replay=f"freepage run {found.file}",
    )
