# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens *during* a migration: the ``script`` of a scenario.

A script is a list of entries.  Each waits for one moment and then does what it
says, in order; the next entry waits until the one before it is done::

    script:
      - at: start
        do: [{action: module-hold, point: before-walk}]
      - at: before-walk
        do:
          - {action: pages-alloc, pages: 256}
          - {action: module-release}

So the order of the actions is the order of the file, whatever the timing.  What
is never reached makes the verdict inconclusive.  Pure: the types are here, what
carries them out is :mod:`harness.script.runner`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Rate, Section, Size, Text

#: The device stops the guest here, and holds the migration, until ``cont``.
DEVICE_HOLDS: Final = ("request", "answer", "applied")
#: The guest's module waits here until it is released; the rest of the guest runs.
MODULE_HOLDS: Final = ("before-walk", "mid-walk", "after-walk")
#: What QEMU's MIGRATION event says of the source.
STATUSES: Final = ("setup", "active", "pre-switchover", "completed", "cancelled", "failed")

DeviceHold: TypeAlias = Literal["request", "answer", "applied"]
ModuleHoldPoint: TypeAlias = Literal["before-walk", "mid-walk", "after-walk"]
Moment: TypeAlias = Literal[
    "start",
    "setup",
    "active",
    "request",
    "before-walk",
    "mid-walk",
    "after-walk",
    "answer",
    "applied",
    "pass",
    "pre-switchover",
    "completed",
    "cancelled",
    "failed",
    "resumed",
]


def as_tuple(value: object) -> object:
    """A list of a file, as the unchangeable thing that a scenario holds."""
    return tuple(value) if isinstance(value, list) else value


class Stop(Section):
    """Stop the guest."""

    action: Literal["stop"] = "stop"
    """Which action."""


class Cont(Section):
    """Let the guest run; in a hold of the device, the migration as well."""

    action: Literal["cont"] = "cont"
    """Which action."""


class Cancel(Section):
    """Cancel the migration."""

    action: Literal["cancel"] = "cancel"
    """Which action."""


class Answers(Section):
    """QEMU has to answer query-status and query-migrate; if it does not, that is a finding."""

    action: Literal["qmp-answers"] = "qmp-answers"
    """Which action."""


class AnswersWhile(Section):
    """The module's walks wait no more; until it has answered, QEMU has to answer as in qmp-answers."""

    action: Literal["qmp-answers-while-unheld"] = "qmp-answers-while-unheld"
    """Which action."""


class Reset(Section):
    """Reset the machine, wait until the guest has booted again, and load it again."""

    action: Literal["reset"] = "reset"
    """Which action."""


class Reboot(Section):
    """Have the guest reboot, wait until it has booted again, and load it again."""

    action: Literal["reboot"] = "reboot"
    """Which action."""


class Kexec(Section):
    """Have the guest start its own kernel anew by kexec, wait for it, and load it again."""

    action: Literal["kexec"] = "kexec"
    """Which action."""


class Bandwidth(Section):
    """Change the migration's bandwidth limit."""

    action: Literal["bandwidth"] = "bandwidth"
    """Which action."""
    limit: Rate | None = None
    """The new limit; null: what the scenario says."""


class Stall(Section):
    """Let nothing through to the destination any more, and wait until the source blocks in a write."""

    action: Literal["stall"] = "stall"
    """Which action."""
    by: Literal["wire", "reader"] = "wire"
    """wire: the network between the hosts goes down; the write may still go on a little now and then,
    as TCP repacks what it sends again. reader: the destination's QEMU is stopped (SIGSTOP) and reads no
    more; then the source blocks for good."""


class Unstall(Section):
    """Let the source's bytes through again, whatever kept them."""

    action: Literal["unstall"] = "unstall"
    """Which action."""


class Kill(Section):
    """Kill the destination's QEMU."""

    action: Literal["kill-destination"] = "kill-destination"
    """Which action."""


class Balloon(Section):
    """Set the balloon's target, and wait until the guest has reached it."""

    action: Literal["balloon"] = "balloon"
    """Which action."""
    size: Size
    """What the guest is left with."""


class PagesAlloc(Section):
    """The guest takes pages from its free lists and writes known contents to them."""

    action: Literal["pages-alloc"] = "pages-alloc"
    """Which action."""
    pages: Annotated[int, Field(ge=1, le=262144)]
    """How many."""


class PagesFree(Section):
    """The guest gives the last of these pages back."""

    action: Literal["pages-free"] = "pages-free"
    """Which action."""
    pages: Annotated[int, Field(ge=1, le=262144)]
    """How many."""


class PagesWrite(Section):
    """The guest writes new contents to all pages that pages-alloc took."""

    action: Literal["pages-write"] = "pages-write"
    """Which action."""


class PagesRead(Section):
    """The guest reads all pages that pages-alloc took; wrong contents are a finding."""

    action: Literal["pages-read"] = "pages-read"
    """Which action."""


class ModuleHold(Section):
    """From now on each walk waits at this point until it is released."""

    action: Literal["module-hold"] = "module-hold"
    """Which action."""
    point: ModuleHoldPoint
    """Where."""
    entries: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """mid-walk only: after so many entries of the free lists; null: as the module likes."""

    @model_validator(mode="after")
    def _possible(self) -> ModuleHold:
        if self.entries is not None and self.point != "mid-walk":
            path = {"path": ("entries",)}
            raise PydanticCustomError("in-entry", "only mid-walk is after a number of entries", path)
        return self


class ModuleRelease(Section):
    """Let the walk that waits go on."""

    action: Literal["module-release"] = "module-release"
    """Which action."""


class ModuleUnhold(Section):
    """Walks wait no more."""

    action: Literal["module-unhold"] = "module-unhold"
    """Which action."""


class Misbehave(Section):
    """Have the module do something wrong, from now on."""

    action: Literal["module-misbehave"] = "module-misbehave"
    """Which action."""
    how: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Its name for it."""
    numbers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple)] = ()
    """What some ways take; report-owned is given the frames that pages-alloc took."""


class Behave(Section):
    """Have the module do nothing wrong any more."""

    action: Literal["module-behave"] = "module-behave"
    """Which action."""


class Take(Section):
    """The module takes pages from the free lists, and only reads them."""

    action: Literal["module-take"] = "module-take"
    """Which action."""
    pages: Annotated[int, Field(ge=1, le=65536)]
    """How many."""


class Unbind(Section):
    """The guest's driver lets go of the balloon."""

    action: Literal["driver-unbind"] = "driver-unbind"
    """Which action."""


class Bind(Section):
    """The guest's driver takes the balloon again."""

    action: Literal["driver-bind"] = "driver-bind"
    """Which action."""


class MemoryOffline(Section):
    """The guest takes memory blocks offline, from the top, as many as it can of so many."""

    action: Literal["memory-offline"] = "memory-offline"
    """Which action."""
    blocks: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many; none at all is an error."""


class MemoryIsolate(Section):
    """The guest begins to take a memory block offline; until module-unhold its free pages stay isolated."""

    action: Literal["memory-isolate"] = "memory-isolate"
    """Which action."""


class MemoryOnline(Section):
    """The guest takes all its memory online again."""

    action: Literal["memory-online"] = "memory-online"
    """Which action."""


#: By the word that chooses them.
ACTIONS: Final[Registry[Section]] = Registry(Section, key="action", noun="action")
for _kind in Section.__subclasses__():
    if ACTIONS.key in _kind.model_fields:
        ACTIONS.add(_kind)

Action: TypeAlias = Annotated[
    Stop
    | Cont
    | Cancel
    | Answers
    | AnswersWhile
    | Reset
    | Reboot
    | Kexec
    | Bandwidth
    | Stall
    | Unstall
    | Kill
    | Balloon
    | PagesAlloc
    | PagesFree
    | PagesWrite
    | PagesRead
    | ModuleHold
    | ModuleRelease
    | ModuleUnhold
    | Misbehave
    | Behave
    | Take
    | Unbind
    | Bind
    | MemoryOffline
    | MemoryIsolate
    | MemoryOnline,
    OneOf(ACTIONS),
]

#: These wait for the guest, which has to run for it.
NEEDS_GUEST: Final = (
    *(Balloon, PagesAlloc, PagesFree, PagesWrite, PagesRead, ModuleHold, ModuleRelease, ModuleUnhold),
    *(AnswersWhile, Misbehave, Behave, Take, Unbind, Bind, MemoryOffline, MemoryIsolate, MemoryOnline),
    *(Reset, Reboot, Kexec),
)
#: These need the module's controls for tests.
NEEDS_CONTROLS: Final = (
    *(ModuleHold, ModuleRelease, ModuleUnhold, AnswersWhile),
    *(Misbehave, Behave, Take, MemoryIsolate),
)
#: After these the guest boots again.
RESTARTS: Final = (Reset, Reboot, Kexec)
#: And these are about pages that only the script knows of.
OWNS_PAGES: Final = (PagesAlloc, PagesFree, PagesWrite, PagesRead)


class Entry(Section):
    """One entry of a script: a moment, and what is done then."""

    at: Moment
    """start: before the migration begins. setup, active, pre-switchover, completed, cancelled,
    failed: QEMU's status on the source. request, answer, applied: the device holds guest and
    migration. before-walk, mid-walk, after-walk: the module holds its walk. pass: a pass over
    memory begins. resumed: the guest runs on the destination."""
    number: Annotated[int, Field(ge=1)] | None = None
    """Which one since the migration began, counted from 1 (pass: the pass's number); null: the next."""
    move: Annotated[int, Field(ge=1)] = 1
    """During which of the moves, counted from 1."""
    do: Annotated[tuple[Action, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Actions, in order."""

    @model_validator(mode="after")
    def _possible(self) -> Entry:
        # Once the answer has been applied only the migration is held.
        running = self.at not in ("request", "answer", "pre-switchover", "completed")
        for index, action in enumerate(self.do):
            if isinstance(action, Cont):
                running = True
            elif isinstance(action, Stop):
                running = False
            elif isinstance(action, NEEDS_GUEST) and not running:
                raise PydanticCustomError(
                    "in-entry",
                    "{word} needs a running guest, which stands still here; put {{action: cont}} before it",
                    {"path": ("do", index, "action"), "word": action.action},
                )
        return self


Script: TypeAlias = Annotated[tuple[Entry, ...], BeforeValidator(as_tuple)]


def holds_needed(script: Iterable[Entry]) -> tuple[str, ...]:
    """The device's holds that a script waits for."""
    wanted = {entry.at for entry in script}
    return tuple(point for point in DEVICE_HOLDS if point in wanted)


def uses(script: Iterable[Entry], kinds: tuple[type[Section], ...]) -> bool:
    """Whether any action of a script is one of these."""
    return any(isinstance(action, kinds) for entry in script for action in entry.do)


def needs_controls(script: Iterable[Entry]) -> bool:
    """Whether the module has to be built with its controls for tests."""
    script = tuple(script)
    return uses(script, NEEDS_CONTROLS) or any(entry.at in MODULE_HOLDS for entry in script)
