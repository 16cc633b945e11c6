# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario can do to the destination's QEMU before the guest leaves, and what that does not go with.

It has words on its command line that the source's has not (``moves[].destination_args``), or a script reaches
it as it waits (``at: destination-ready``, ``at: listening``).
"""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from harness.scenario.moments import BEFORE_IT_LEAVES, GUEST_MAY_BE_THERE


def refuse_wrong_ends(scenario: Any) -> None:
    """Raise pydantic's error, at its place, for a script that ends a QEMU of which more is wanted."""
    last = len(scenario.moves)
    for index, entry in enumerate(scenario.script):
        for place, action in enumerate(entry.do):
            if action.action != "quit":
                continue
            how = scenario.migration_of(min(entry.move, last))
            reasons = {
                "is of a migration that goes on: put it at setup or later": entry.at == "start",
                f"does not go together with at: {entry.at}, where the guest has left": (
                    entry.at == "completed" or entry.at in GUEST_MAY_BE_THERE
                ),
                "is of a lab: nobody says how a remote host's QEMU ends": scenario.remote is not None,
                f"does not go together with migration.to: {how.to}": how.to != "host",
                "ends the guest: it is for the last of the moves, and that has to fail (ends: failed)": (
                    action.ends_guest and (entry.move != last or scenario.moves[-1].ends != "failed")
                ),
            }
            for words, given in reasons.items():
                if given:
                    path = {"path": ("script", index, "do", place, "action"), "words": words}
                    raise PydanticCustomError("at", "quit {words}", path)


def refuse_wrong_destinations(scenario: Any) -> None:
    """Raise pydantic's error, at its place, for a move that has no such destination.

    ``scenario``: a whole one; its module imports this one.
    """
    for index, how in enumerate(scenario.migrations):
        for place in _places(scenario, index):
            reasons = {
                f"migration.to: {how.to}": how.to != "host",
                "mode: cpr-transfer, whose destination listens at once": how.hands_over,
                "postcopy: libvirt, which starts the destination by itself": how.postcopy == "libvirt",
            }
            for words, given in reasons.items():
                if given:
                    context = {"path": place, "words": words}
                    raise PydanticCustomError("at", "does not go together with {words}", context)
        if scenario.moves[index].destination_args and scenario.remote is not None:
            path = {"path": ("moves", index, "destination_args")}
            raise PydanticCustomError(
                "at", "is of a lab: a remote host's QEMU has its own command line", path
            )


def _places(scenario: Any, index: int) -> list[tuple[str | int, ...]]:
    """Where one of the moves, counted from 0, says such a thing."""
    found: list[tuple[str | int, ...]] = [
        ("script", number, "at")
        for number, entry in enumerate(scenario.script)
        if entry.move == index + 1 and entry.at in BEFORE_IT_LEAVES
    ]
    if scenario.moves[index].destination_args:
        found.append(("moves", index, "destination_args"))
    return found
