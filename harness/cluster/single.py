# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run SCENARIO --workers``: one run on a cluster, with the output and exit status of any run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cluster.runner import ClusterEngine
from harness.report.finished import RunSink
from harness.run.carry_out import print_result
from harness.suite.several import NamedRuns, run_named
from harness.terminal import print_error


def run_one_elsewhere(
    named: NamedRuns, engine: ClusterEngine, *, out: Path | None, as_json: bool, sinks: Sequence[RunSink] = ()
) -> int:
    """Make the one run that is named; the exit status."""
    report = run_named(named, out=out, jobs=1, sinks=sinks, engine=engine)
    for run in report.runs:
        if run.result is not None:
            print_result(run.result, as_json=as_json)
        else:
            print_error(f"freepage: {run.reason}")
    return report.exit_status
