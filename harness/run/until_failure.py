# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run --until-failure``: the same scenario again and again, until a run is not as it should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, InputError
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.report.folder import RunFolder, demand_new
from harness.report.gravity import INTERRUPTED
from harness.run.odds import CONFIDENCE, most_rate
from harness.run.one_run import MadeRun, run_as_command
from harness.scenario.load import Override
from harness.terminal import print_error

_DOCUMENT: Final = "until-failure.json"
_SCENARIO: Final = "scenario.yaml"


@dataclass(frozen=True, slots=True)
class Repeated:
    """Runs of one scenario, in their order; only the last may have failed."""

    scenario: str
    most: int
    runs: tuple[MadeRun, ...]
    interrupted: bool = False

    @property
    def tried(self) -> tuple[MadeRun, ...]:
        """Runs that reached a verdict on what was tried: an inconclusive run says nothing."""
        return tuple(end for end in self.runs if end.exit_status in (ExitCode.PASS, ExitCode.FAIL))

    @property
    def exit_status(self) -> int:
        """That of the last run, which is the one that failed; 0 for none that failed."""
        if self.interrupted:
            return INTERRUPTED
        last = self.runs[-1].exit_status
        if last != ExitCode.INCONCLUSIVE:
            return last
        return ExitCode.PASS if self.tried else ExitCode.INCONCLUSIVE

    def lines(self) -> list[str]:
        """What came of it, and how much that tells."""
        done, last = len(self.runs), self.runs[-1] if self.runs else None
        unclear = sum(end.exit_status == ExitCode.INCONCLUSIVE for end in self.runs)
        aside = f", {unclear} inconclusive" if unclear else ""
        if last is not None and _ends(last):
            lines = [f"run {done} of at most {self.most}: {last.word}: {last.reason}"]
            lines += [f"seed        {last.seed}"] if last.seed is not None else []
            passed = sum(end.exit_status == ExitCode.PASS for end in self.runs)
            return [*lines, f"run folder  {last.folder}", f"before it   {passed} passed{aside}"]
        passed = len(self.tried)
        bound = f"{100 * most_rate(0, passed):.2g} %"
        lines = [f"none of {passed} runs failed{aside}"]
        if passed:
            lines.append(
                f"a run fails in fewer than {bound} of cases, with {100 * CONFIDENCE:.0f} % confidence "
                f"(1 - {1 - CONFIDENCE:.2g}^(1/{passed}))"
            )
        return lines

    def document(self) -> str:
        """The same as JSON."""
        return (
            json.dumps(
                {
                    "version": 1,
                    "scenario": self.scenario,
                    "most": self.most,
                    "exit_status": self.exit_status,
                    "runs": [
                        {
                            "outcome": end.word,
                            "exit_status": end.exit_status,
                            "reason": end.reason,
                            "rules": list(end.rules),
                            "seed": end.seed,
                            "folder": str(end.folder),
                        }
                        for end in self.runs
                    ],
                    "rate_below": most_rate(0, len(self.tried)) if self.exit_status == 0 else None,
                },
                indent=2,
                ensure_ascii=False,
            )
            + "\n"
        )


def _ends(end: MadeRun) -> bool:
    """Whether nothing is run after this one."""
    return end.exit_status not in (ExitCode.PASS, ExitCode.INCONCLUSIVE)


def repeat(scenario: str, most: int, make: Callable[[int], MadeRun]) -> Repeated:
    """Call ``make`` with 1, 2, ... until a run fails, or ``most`` have not."""
    ends: list[MadeRun] = []
    try:
        for number in range(1, most + 1):
            ends.append(make(number))
            if _ends(ends[-1]):
                break
    except KeyboardInterrupt:
        return Repeated(scenario, most, tuple(ends), interrupted=True)
    return Repeated(scenario, most, tuple(ends))


def run_until_failure(
    name: str, changes: Sequence[str | Override], tools: Tools, most: int, *, out: Path | None, as_json: bool
) -> int:
    """Run a scenario until a run fails, ``most`` times at most; returns the exit status.

    Each run draws a seed of its own, unless the scenario has one.  ``out`` is the folder of the run folders.
    """
    scenario, tools = load_with_tools(name, changes, tools)
    demand_new(out)
    stem = RunFolder.stem(scenario.name, scenario.arm)
    folder = (out or Path("runs", f"{stem}-until-failure")).absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}", hint="give --out DIR"
        ) from error
    file = folder / _SCENARIO
    file.write_text(scenario.to_yaml(), encoding="utf-8")
    width = len(str(most))

    def make(number: int) -> MadeRun:
        place = folder / f"run-{number:0{width}d}"
        end = run_as_command(file, place, tools.options(), quiet=as_json)
        print_error(f"run {number} of at most {most}: {end.word}")
        return end

    repeated = repeat(scenario.name, most, make)
    (folder / _DOCUMENT).write_text(repeated.document(), encoding="utf-8")
    if as_json:
        print(repeated.document(), end="", flush=True)  # noqa: T201 - this is the command's output
    else:
        print("\n".join(repeated.lines()), flush=True)  # noqa: T201 - likewise
    return repeated.exit_status
