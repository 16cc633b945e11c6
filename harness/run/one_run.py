# SPDX-License-Identifier: GPL-2.0-or-later
"""One run as a command of its own, for whoever makes several of the same scenario.

    end = run_as_command(scenario_file, folder, tools.options())

A process each: what one run leaves in memory does not reach the next.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, InputError
from harness.hosts.signals import polite_signals
from harness.invoke import bound_to_us, command_line
from harness.report.folder import RUN_RESULT
from harness.report.gravity import INTERRUPTED
from harness.report.result import Result
from harness.run.matrix import said_last

#: What each exit status of a run is called.
_WORDS: Final = {
    ExitCode.PASS: "pass",
    ExitCode.FAIL: "fail",
    ExitCode.INPUT: "input",
    ExitCode.ERROR: "error",
    ExitCode.INCONCLUSIVE: "inconclusive",
    INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class MadeRun:
    """What came of a run.  ``rules``: those that found something wrong, the first one first."""

    folder: Path
    exit_status: int
    reason: str
    seed: int | None = None
    rules: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The exit status as a word."""
        return _WORDS.get(self.exit_status, f"exit status {self.exit_status}")


def run_as_command(scenario: Path, folder: Path, options: Sequence[str]) -> MadeRun:
    """Make one run of a scenario's file; ``folder`` is to be its run folder, and must not exist.

    What the run says goes to ``folder`` with ``.log`` behind its name.
    Raises :class:`KeyboardInterrupt` once the run has ended, where somebody has interrupted it.
    """
    # A run does not outlive whoever waits for it.
    line = bound_to_us(command_line(["run", scenario, "--out", folder, *options]))
    log = folder.with_name(f"{folder.name}.log")
    with polite_signals(), log.open("wb") as output:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return one_run(folder, status, log)


def one_run(folder: Path, status: int, log: Path) -> MadeRun:
    """What came of a run, from its command's exit status and from what it left."""
    if status < 0:
        return MadeRun(folder, ExitCode.ERROR, f"it was killed by signal {-status}")
    path = folder / RUN_RESULT
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        result = None if text is None else Result.from_json(text, str(path))
    except (InputError, OSError) as error:
        return MadeRun(folder, ExitCode.ERROR, str(error))
    if result is None:
        said = said_last(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else ""
        # A status without a result to bear it out is none.
        verdict = status in (ExitCode.PASS, ExitCode.FAIL, ExitCode.INCONCLUSIVE)
        return MadeRun(folder, ExitCode.ERROR if verdict else status, said or "it left no result")
    rules = tuple(dict.fromkeys(found.rule for found in result.findings))
    return MadeRun(folder, status, result.reason, result.seed, rules)
