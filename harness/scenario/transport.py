# SPDX-License-Identifier: GPL-2.0-or-later
"""By what a migration goes from one QEMU to the other, and what that goes together with."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from pydantic_core import PydanticCustomError

#: QEMU's transports.
Transport: TypeAlias = Literal["tcp", "unix", "fd", "pipe", "exec"]
#: The two forms in which QEMU takes an address.
AddressForm: TypeAlias = Literal["uri", "channels"]

#: Those that are one connection, and cannot be made again by who connects.
_ONE_CONNECTION: Final = ("fd", "pipe", "exec")
#: Those by which nothing comes back.
ONE_WAY: Final = ("pipe", "exec")
#: Capabilities that take more connections.
_OF_SEVERAL: Final = ("multifd", "postcopy-preempt")


def refuse_wrong_transports(scenario: Any) -> None:
    """Raise pydantic's error, at its place, for what does not go together with a move's transport."""
    for number, how in enumerate(scenario.migrations, 1):
        said = scenario.moves[number - 1].migration
        here = ("moves", number - 1, "migration")
        for key, own in (("over", "tcp"), ("address", "uri")):
            if getattr(how, key) != own:
                at_move = said is not None and key in said.model_fields_set
                place = here if at_move else ("migration",)
                _refuse(scenario, how, number, (*place, key), getattr(how, key))


def _refuse(scenario: Any, how: Any, number: int, place: tuple[str | int, ...], value: str) -> None:
    def wrong(words: str) -> None:
        raise PydanticCustomError("at", "{value} {words}", {"path": place, "value": value, "words": words})

    if how.to != "host":
        wrong(f"does not go together with migration.to: {how.to}")
    if how.hands_over:
        wrong("does not go together with mode: cpr-transfer, which has sockets of its own")
    if how.postcopy == "libvirt":
        wrong("does not go together with postcopy: libvirt, which chooses by itself")
    if scenario.remote is not None:
        wrong("is of a lab, whose hosts are one machine")
    if place[-1] != "over":
        return
    # What QEMU itself has to refuse a scenario may ask for, where it says that it will.
    to_be_refused = scenario.moves[number - 1].ends == "failed"
    for capability in _OF_SEVERAL if value in _ONE_CONNECTION and not to_be_refused else ():
        if how.switches_on(capability):
            wrong(f"is one connection, and {capability} takes more")
    if value in ONE_WAY:
        if how.switches_on("postcopy-ram"):
            wrong("goes one way only, and postcopy asks for pages")
        if how.capabilities.get("return-path"):
            wrong("goes one way only: there is no return path")
    if scenario.wire is not None:
        wrong("does not go over the network that wire is about")
    for entry in scenario.script:
        for action in entry.do:
            if entry.move == number and action.touches_wire:
                wrong(f"does not go over the network that the script's {action.action} is about")
