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
is never reached makes the verdict inconclusive.  The actions are in
:mod:`harness.scenario.actions`; what works off a script is :mod:`harness.script.runner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

import harness.scenario.actions  # noqa: F401 - with it those that ship are registered
from harness.scenario.actions.base import Action, AnyAction
from harness.scenario.actions.module import MODULE_HOLDS
from harness.scenario.moments import GUEST_MAY_BE_THERE, Moment
from harness.scenario.values import Section, as_tuple

#: The device stops the guest here, and holds the migration, until ``cont``.
DEVICE_HOLDS: Final = ("request", "answer", "applied")
#: What QEMU's MIGRATION event says of the source.
STATUSES: Final = (
    "setup",
    "wait-unplug",
    "active",
    "pre-switchover",
    "device",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover-setup",
    "postcopy-recover",
    "completed",
    "cancelled",
    "failed",
)
#: Before libvirt starts the destination's QEMU.
_BEFORE_ALL: Final = "start"
#: The guest stands still on the source then, for the moment or for good.
_STANDS_STILL: Final = (
    "request",
    "answer",
    "pre-switchover",
    "device",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover-setup",
    "postcopy-recover",
    "completed",
)


class Entry(Section):
    """One entry of a script: a moment, and what is done then."""

    at: Moment
    """The moment that it waits for."""
    number: Annotated[int, Field(ge=1)] | None = None
    """Which one since the migration began, counted from 1 (pass: the pass's number); null: the next."""
    move: Annotated[int, Field(ge=1)] = 1
    """During which of the moves, counted from 1."""
    do: Annotated[tuple[AnyAction, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Actions, in order."""

    @model_validator(mode="after")
    def _possible(self) -> Entry:
        # Once the answer has been applied only the migration is held.
        running = self.at not in _STANDS_STILL
        for index, action in enumerate(self.do):
            if action.needs_guest and not running:
                raise PydanticCustomError(
                    "in-entry",
                    "{word} needs a running guest, which stands still here; put {{action: cont}} before it",
                    {"path": ("do", index, "action"), "word": action.action},
                )
            if action.needs_destination and self.at == _BEFORE_ALL:
                raise PydanticCustomError(
                    "in-entry",
                    "there is no QEMU on the destination yet at {at}; put {word} at destination-ready or "
                    "later",
                    {"path": ("do", index, "action"), "at": self.at, "word": action.action},
                )
            if action.needs_guest_there and self.at not in GUEST_MAY_BE_THERE:
                raise PydanticCustomError(
                    "in-entry",
                    "the guest is not on the destination yet at {at}, and {word} would wait for it in vain; "
                    "put it at resumed",
                    {"path": ("do", index, "action"), "at": self.at, "word": action.action},
                )
            if action.only_at and self.at not in action.only_at:
                raise PydanticCustomError(
                    "in-entry",
                    "QEMU refuses {word} while it migrates; put it at {moments}",
                    {
                        "path": ("do", index, "action"),
                        "word": action.action,
                        "moments": " or ".join(action.only_at),
                    },
                )
            if action.runs_after is not None:
                running = action.runs_after
        return self


Script: TypeAlias = Annotated[tuple[Entry, ...], BeforeValidator(as_tuple)]


def holds_needed(script: Iterable[Entry]) -> tuple[str, ...]:
    """The device's holds that a script waits for."""
    wanted = {entry.at for entry in script}
    return tuple(point for point in DEVICE_HOLDS if point in wanted)


def actions(script: Iterable[Entry]) -> Iterator[Action]:
    """All actions of a script, in order."""
    return (action for entry in script for action in entry.do)


def needs_controls(script: Iterable[Entry]) -> bool:
    """Whether the module has to be built with its controls for tests."""
    script = tuple(script)
    held = any(entry.at in MODULE_HOLDS for entry in script)
    return held or any(action.needs_controls for action in actions(script))


def count_plugged(script: Iterable[Entry]) -> int:
    """The most vCPUs that there are at one time, beyond those of the boot."""
    now = most = 0
    for action in actions(script):
        now += action.plugs_vcpus
        most = max(most, now)
    return most


def restarts(script: Iterable[Entry]) -> bool:
    """Whether the guest boots again during the migration."""
    return any(action.restarts for action in actions(script))
