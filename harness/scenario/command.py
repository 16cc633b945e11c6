# SPDX-License-Identifier: GPL-2.0-or-later
"""A command that the guest runs: what a scenario writes, what came of it, and whether that was expected."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, TypeAlias

from pydantic import BeforeValidator, Field

from harness.errors import GuestLost
from harness.events import Deadline
from harness.scenario.values import Section, Text, as_tuple

#: The longest command, in bytes with one more for each word: it travels as one line of the control channel.
LONGEST_COMMAND: Final = 1900
#: So much of a command's output is kept; the guest keeps no more.
MOST_OUTPUT: Final = 1 << 20
#: The guest's own limit stands still with it; it is emulated, and stopped in between.
GRACE_SECONDS: Final = 180.0


def _words(value: object) -> object:
    value = as_tuple(value)
    if isinstance(value, tuple) and all(isinstance(word, str) for word in value):
        if sum(len(word.encode()) + 1 for word in value) > LONGEST_COMMAND:
            raise ValueError(f"expected at most {LONGEST_COMMAND} bytes in all")
        if any("\0" in word for word in value):
            raise ValueError("expected no NUL character")
    return value


Words: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(_words), Field(min_length=1, max_length=38)]


class Command(Section):
    """A command that the guest's agent runs as root, without a shell, and what must come of it."""

    run: Words
    """Program and arguments, a word each. There is no shell: `[sh, -c, "..."]` is one."""
    status: Annotated[int, Field(ge=0, le=255)] | None = 0
    """The exit status that it must have; null: any. A command that could not be started has 127; one that a
    signal ended has none, and is as expected with null only."""
    output: Text | None = None
    """Words that must be in its output (standard output and standard error together)."""
    within_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds, by the guest's clock, after which it is killed: then it is not as expected."""


def _as_command(value: object) -> object:
    """A bare list of words is a command that must end with 0."""
    return {"run": value} if isinstance(value, list | tuple) else value


CommandList: TypeAlias = Annotated[
    tuple[Annotated[Command, BeforeValidator(_as_command, json_schema_input_type=Command | list[str])], ...],
    BeforeValidator(as_tuple),
    Field(max_length=64),
]


class Commands(Section):
    """Commands in the guest around its migrations; those of during are actions of the script."""

    before: CommandList = ()
    """Run once the workload is loaded, before the first migration: each a list of words, or a Command."""
    after: CommandList = ()
    """Run when the guest goes on after the last migration, before its own checks."""


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command in the guest ended."""

    words: tuple[str, ...]
    #: Its exit status; None: a signal ended it.
    status: int | None
    signal: int | None
    #: It was killed because its time was over.
    late: bool
    #: What it wrote, at most :data:`MOST_OUTPUT` bytes, in UTF-8 as far as it is that.
    output: str
    #: How much it wrote, in bytes.
    written: int

    @property
    def how(self) -> str:
        """In words."""
        if self.late:
            return "was killed when its time was over"
        return f"was ended by signal {self.signal}" if self.status is None else f"ended with {self.status}"


class CommandRunner(Protocol):
    """Who has the guest's agent do something, and waits for its answer."""

    def call(self, verb: str, *words: str | int, deadline: Deadline) -> Mapping[str, object]:
        """Have the agent do something; its answer.

        Raises :class:`harness.errors.MachineryError` when the agent refuses, and
        :class:`harness.errors.GuestLost` when there is no answer by the deadline.
        """


def run_in_guest(guest: CommandRunner, command: Command) -> CommandEnd:
    """Run it, and read what it wrote.  Raises :class:`GuestLost` if the guest does not answer."""
    deadline = Deadline(command.within_s + GRACE_SECONDS, f"the guest's command {command.run[0]!r}")
    words = [f"x{word.encode().hex()}" for word in command.run]
    answer = guest.call("run", command.within_s, *words, deadline=deadline)
    call, written = _number(answer, "call"), _number(answer, "bytes")
    output = b""
    while len(output) < min(written, MOST_OUTPUT):
        piece = guest.call("output", call, len(output), deadline=deadline)
        try:
            data = base64.b64decode(str(piece["data"]), validate=True)
        except (binascii.Error, ValueError) as error:
            raise GuestLost(f"the guest's answer makes no sense: {error}") from error
        if not data:
            break
        output += data
    signal = _number(answer, "signal")
    return CommandEnd(
        words=command.run,
        status=None if signal else _number(answer, "status"),
        signal=signal or None,
        late=bool(answer["late"]),
        output=output.decode(errors="replace"),
        written=written,
    )


#: What :func:`disappointments` may name.
COMMAND_RULES: Final[Mapping[str, str]] = {
    "command-status": "a command in the guest ends with another status than the scenario says, or too late",
    "command-output": "a command in the guest does not write what the scenario says",
}


def disappointments(command: Command, end: CommandEnd) -> list[tuple[str, str]]:
    """What of a command's end is not as the scenario says: rules and words."""
    name = " ".join(end.words)[:80]
    if end.late or (command.status is not None and end.status != command.status):
        wanted = "any status" if command.status is None else f"status {command.status}"
        return [("command-status", f"the guest's command {name!r} {end.how}, expected {wanted}")]
    if command.output is not None and command.output not in end.output:
        said = end.output[-200:] or "nothing"
        text = f"the guest's command {name!r} wrote {said!r}, expected {command.output!r} in it"
        return [("command-output", text)]
    return []


def _number(answer: Mapping[str, object], key: str) -> int:
    value = answer[key]
    assert isinstance(value, int)
    return value
