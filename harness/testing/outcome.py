# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test gets of a command that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ExitCode, MachineryError
from harness.invoke import Output

if TYPE_CHECKING:
    from harness.report.result import Result
    from harness.scenario.expectations import VerdictWord

_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has come to a verdict."""

    verdict: VerdictWord
    """``pass``, ``fail`` or ``inconclusive``."""
    exit_code: int
    """0 for pass, 1 for fail, 4 for inconclusive."""
    result: Result
    """All that it found: docs/result.md."""
    folder: Path
    """Its run folder."""
    stdout: str
    """The result, as one JSON document."""
    stderr: str
    """What it said while it ran."""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.result.reason}\nrun folder: {self.folder}\n{self.stderr}"


class NoVerdict(MachineryError):  # noqa: N818 - it says what there is not
    """A command ended without a verdict: a guest or a host was lost, or the machine failed.

    That is no failure of what is tested.  The plugin reports the test as an error.
    """

    def __init__(self, ending: Ending) -> None:
        said = ending.last_words()
        super().__init__(f"no verdict (exit status {ending.exit_code}): {said}\nfolder: {ending.folder}")
        self.ending = ending


class WrongInput(AssertionError):  # noqa: N818 - the command's words follow
    """The command says that the test asks for what cannot be done as asked (exit status 2)."""


@dataclass(frozen=True, slots=True)
class Ending(Output):
    """How a command ended, whatever became of it."""

    folder: Path
    """Its run folder; there is none where the input was wrong."""

    @property
    def result(self) -> Result:
        """The result that it printed.  Raises :class:`harness.errors.InputError` if it printed none."""
        from harness.report.result import Result

        return Result.from_json(self.stdout, "what the command printed")

    def last_words(self) -> str:
        """Its error message, or the end of what it said."""
        lines = self.stderr.strip().splitlines()
        start = next(
            (i for i, line in enumerate(lines) if line.startswith("freepage: ")),
            max(0, len(lines) - _LAST_LINES),
        )
        return "\n".join(lines[start:]).removeprefix("freepage: ")

    def run(self) -> Run:
        """The run, where it has a verdict.  Raises :class:`NoVerdict` or :class:`WrongInput` otherwise."""
        __tracebackhide__ = True
        if self.exit_code == ExitCode.INPUT:
            raise WrongInput(self.last_words())
        if self.exit_code not in (ExitCode.PASS, ExitCode.FAIL, ExitCode.INCONCLUSIVE):
            raise NoVerdict(self)
        result = self.result
        return Run(result.verdict, self.exit_code, result, self.folder, self.stdout, self.stderr)
