# SPDX-License-Identifier: GPL-2.0-or-later
"""What does not go together with several guests: what there is once, and one of them would take or change."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import PydanticCustomError

#: Beyond this one machine's two cores, and its memory, show nothing more.
MOST_GUESTS: Final = 8

#: Keys of a migration, what they have to be, and why.
_ONLY: Final = (
    ("to", "host", "they all move at the same time, from host to host"),
    ("over", "tcp", "what is not a port of the network would be the same for each"),
)


def refuse_with_several_guests(scenario: Any) -> None:
    """Raise an error of pydantic's, at the key, for what several guests cannot have.

    ``scenario``: a whole one; its module imports this one.
    """
    if scenario.guests == 1:
        return
    if scenario.remote is not None:
        _refuse(("remote",), "they are in a lab of the run's own")
    for number, how in enumerate(scenario.migrations):
        own = scenario.moves[number].migration
        for key, only, why in _ONLY:
            if getattr(how, key) != only:
                # What a move says itself is where it has to be changed.
                moved = own is not None and key in own.model_fields_set
                _refuse(("moves", number, "migration", key) if moved else ("migration", key), why)
    _refuse_devices(scenario.guest)
    for index, entry in enumerate(scenario.script):
        for place, action in enumerate(entry.do):
            if action.touches_wire:
                where = ("script", index, "do", place, "action")
                _refuse(where, f"{action.action} is about the one network between the hosts, which all use")


def _refuse_devices(guest: Any) -> None:
    for device in guest.all_devices:
        why = device.only_of_one_guest
        if why is not None:
            for key in ("devices", "disks", "nics"):
                for index, listed in enumerate(getattr(guest, key)):
                    if listed is device:
                        _refuse(("guest", key, index), f"{device.device}: {why}")


def _refuse(path: tuple[str | int, ...], why: str) -> None:
    words = "does not go together with several guests (guests): {why}"
    raise PydanticCustomError("at", words, {"path": path, "why": why})
