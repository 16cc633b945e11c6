# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that the command tells apart, each with an exit code and a next step.

A verdict is not an error: a run that finds wrong memory ends normally, with a
result.  What is raised here is everything that keeps a run from reaching a
verdict at all, so that "the memory is wrong" is never confused with "the guest
was lost" or "the scenario has a typing error".

    raise InputError("no such scenario: 'fred'", hint="did you mean 'freed'?")

``str()`` of an error is its message, without the hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command returns to the shell."""

    PASS = 0
    FAIL = 1
    INPUT = 2
    ERROR = 3
    INCONCLUSIVE = 4


class FreepageError(Exception):
    """Any error of this project; carries the exit code and, where one is known, a next step."""

    exit_code: int = ExitCode.ERROR

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def render(self) -> str:
        """Everything that a user should read, hint included, as plain lines."""
        lines = [self.message]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class InputError(FreepageError):
    """What the user asked for cannot be done as asked; nothing was started."""

    exit_code: int = ExitCode.INPUT


class _ProcessError(FreepageError):
    """An error about a process: with its last words, and the command line to repeat by hand."""

    def __init__(
        self,
        message: str,
        *,
        last_lines: Sequence[str] = (),
        command: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.last_lines = tuple(last_lines)
        self.command = tuple(command)

    def render(self) -> str:
        """The message, the last words, the command line, the hint."""
        lines = [self.message]
        if self.last_lines:
            lines.append("last words:")
            lines.extend(f"  | {line}" for line in self.last_lines)
        if self.command:
            # Imported here: nobody else on the way to a plain error needs it.
            import shlex

            lines.append(f"command line: {shlex.join(self.command)}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class StartRefused(_ProcessError, InputError):  # noqa: N818 - the name says what happened
    """QEMU or libvirt does not start what the user wrote out for it; carries what it said."""


class Interrupted(FreepageError):  # noqa: N818 - the name says what happened
    """The user has ended the command."""

    exit_code: int = 130

    def __init__(self) -> None:
        super().__init__("interrupted")


class MachineryError(FreepageError):
    """Something that a run stands on failed; there is no verdict."""

    exit_code: int = ExitCode.ERROR


class GuestRefused(MachineryError):  # noqa: N818 - the name says what happened
    """The guest's agent answers that it cannot do what it was asked for."""


class DeadlineExceeded(MachineryError):  # noqa: N818 - the name says what happened
    """Something that should have happened by now has not."""


class LostError(_ProcessError, MachineryError):
    """A process that the run depends on is gone; carries its last words.

    ``last_lines`` is the tail of its console or log, ``command`` the command
    line to repeat by hand.
    """


class GuestLost(LostError):  # noqa: N818 - the name says what happened
    """The guest died, hung or never said that it was ready."""


class HostLost(LostError):  # noqa: N818 - the name says what happened
    """A host (its libvirt daemon or its QEMU) died."""
