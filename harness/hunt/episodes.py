# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces of scripts that make sense: what a hunt has happen during a migration.  Pure.

An episode is some entries of a script and the keys that it needs.  A random sequence of actions would mostly
wait for a moment that never comes, or leave the guest stopped; so what has an end is drawn with its end
(:data:`BEGUN_AND_ENDED`), and what needs a stage is drawn on it (a walk that is held, a switch to postcopy).
Any other action is drawn alone, at a moment at which it can be: a new one needs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.scenario.actions.base import ACTIONS

ScenarioTree = dict[str, Any]

#: What is begun, and what ends it.
BEGUN_AND_ENDED: Final[Mapping[str, str]] = {
    "stop": "cont",
    "nic-down": "nic-up",
    "driver-unbind": "driver-bind",
    "memory-offline": "memory-online",
    "stall": "unstall",
}
#: Of those, what has to end where it began: meanwhile nothing of the guest's could be done.
AT_ONCE: Final = ("stop", "stall")

_LEGS: Final = "it ends a migration: drawn as the end of a leg"
_POSTCOPY: Final = "drawn with the switch to postcopy"
_WALK: Final = "drawn with a walk that is held"
_PAGES: Final = "drawn once pages were taken"
_RESTART: Final = "a guest that boots again is not quick"

#: Actions that are not drawn alone, and why; the ends of pairs are not, either.
NOT_DRAWN_ALONE: Final[Mapping[str, str]] = {
    "cancel": _LEGS,
    "kill-destination": _LEGS,
    "wire-cut": "stall is drawn, which waits until the source has noticed",
    "wire-cut-after": "it ends a migration, or waits for bytes that may not come",
    "postcopy-start": _POSTCOPY,
    "postcopy-touch": _POSTCOPY,
    "postcopy-break": _POSTCOPY,
    "postcopy-recover": _POSTCOPY,
    "pages-free": _PAGES,
    "pages-write": _PAGES,
    "pages-read": _PAGES,
    "module-hold": _WALK,
    "module-release": _WALK,
    "module-unhold": _WALK,
    "qmp-answers-while-unheld": _WALK,
    "module-misbehave": "it makes a run wrong on purpose",
    "module-behave": "it ends module-misbehave",
    "memory-isolate": _WALK,
    "vcpu-remove": "for KVM only",
    "reset": _RESTART,
    "reboot": _RESTART,
    "kexec": _RESTART,
    "qmp": "free text: what it breaks would be the draw's own fault",
    "wait": "free text: what it breaks would be the draw's own fault",
    "device-add": "free text: what it breaks would be the draw's own fault",
    "device-del": "free text: what it breaks would be the draw's own fault",
    "guest-run": "free text: what it breaks would be the draw's own fault",
}

#: The moments of a move, in their order; those of arm info are reached in no other.
MOMENT_ORDER: Final = (
    "start",
    "active",
    "request",
    "before-walk",
    "mid-walk",
    "after-walk",
    "answer",
    "applied",
    "pass",
    "pre-switchover",
    "postcopy-active",
    "postcopy-paused",
    "resumed",
)
#: Those of which a script alone can say when they come.
PLAIN_MOMENTS: Final = ("start", "active", "pass", "pre-switchover")
INFO_MOMENTS: Final = ("request", "answer", "applied")
#: Moments that come more than once in a migration of a guest that writes.
COMES_AGAIN: Final = ("pass", "request", "answer", "applied", "before-walk", "mid-walk", "after-walk")
#: Moments at which a migration is ended before its time.
#: Not at pre-switchover: libvirt hangs then (docs/found.md).
END_MOMENTS: Final = ("active", "pass", "request", "answer", "applied")

#: Actions that can be done at certain moments only, for the sake of what they are: a balloon that takes a
#: page which was sent already makes both sides differ, and rightly (docs/oracle.md).
ONLY_AT: Final[Mapping[str, Sequence[str]]] = {"balloon": ("start",)}


@dataclass(frozen=True, slots=True)
class Episode:
    """Entries of a script, in the order of their moments, and the keys without which they cannot be."""

    entries: tuple[ScenarioTree, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def begins(self) -> int:
        """Where its first moment is in the order of moments."""
        return MOMENT_ORDER.index(self.entries[0]["at"])


@dataclass(frozen=True, slots=True)
class Leg:
    """One migration of several: how it ends, and what happens during it."""

    ends: str
    episodes: tuple[Episode, ...] = ()
    #: The moment at which it is ended before its time.
    ended_at: str = "active"
    paused: bool = False


def moments_for(word: str, arm: str) -> tuple[str, ...]:
    """The moments at which an action can be drawn."""
    only = ONLY_AT.get(word) or ACTIONS[word].only_at
    there = {*PLAIN_MOMENTS, *(INFO_MOMENTS if arm == "info" else ())}
    if ACTIONS[word].needs_guest or word == "stop":
        # A guest that was let go in the middle of its switch-over would write to what has left.
        there -= {"pre-switchover"}
    return tuple(moment for moment in MOMENT_ORDER if moment in there and (not only or moment in only))


def settings_for(word: str) -> Mapping[str, Any]:
    """The keys that an action cannot be without."""
    kind = ACTIONS[word]
    found: dict[str, Any] = {}
    if kind.needs_controls:
        found["guest.module"] = "test"
    if kind.restarts:
        found["walk"] = False
    if kind.needs_virtio_mem:
        found["guest.virtio_mem"] = {"size": "128MiB", "plugged": "64MiB"}
    if word == "memory-offline":
        # Of the memory that the kernel has booted in, no block may be free to go.
        found["guest.dimm"] = "128MiB"
    if word == "vcpu-add":
        found["guest.topology"] = {"cores": 4}
    return found


def entry(moment: str, actions: Sequence[ScenarioTree], number: int | None = None) -> ScenarioTree:
    """An entry of a script; where the guest stands still, it is let go for those that need it."""
    do = list(actions)
    stands = moment in ("request", "answer")
    if stands and any(ACTIONS[one["action"]].needs_guest for one in do):
        do.insert(0, {"action": "cont"})
    found: ScenarioTree = {"at": moment}
    if number is not None:
        found["number"] = number
    return {**found, "do": do}


def script_of(legs: Sequence[Leg]) -> list[ScenarioTree]:
    """The script of all legs: in each, the episodes by their moments, and its end."""
    script: list[ScenarioTree] = []
    for number, leg in enumerate(legs, 1):
        entries = [one for episode in leg.episodes for one in episode.entries]
        if leg.ends != "completed":
            word = "cancel" if leg.ends == "cancelled" else "kill-destination"
            entries = [
                one for episode in leg.episodes if _is_over(episode, leg.ended_at) for one in episode.entries
            ]
            entries.append({"at": leg.ended_at, "do": [{"action": word}]})
        entries.sort(key=lambda one: MOMENT_ORDER.index(one["at"]))
        entries = _once(entries)
        script += [one if number == 1 else {**one, "move": number} for one in entries]
    return script


def _once(entries: Sequence[ScenarioTree]) -> list[ScenarioTree]:
    """The same, with one entry for each moment that comes once: a second one would wait for ever."""
    found: list[ScenarioTree] = []
    for entry in entries:
        if found and found[-1]["at"] == entry["at"] and entry["at"] not in COMES_AGAIN:
            found[-1] = {**found[-1], "do": [*found[-1]["do"], *entry["do"]]}
        else:
            found.append(entry)
    return found


def _is_over(episode: Episode, moment: str) -> bool:
    """Whether all of it comes before a moment, or at it: what was begun is ended."""
    return all(MOMENT_ORDER.index(one["at"]) <= MOMENT_ORDER.index(moment) for one in episode.entries)


def moves_of(legs: Sequence[Leg]) -> list[ScenarioTree]:
    """The moves of all legs; nothing where there is one plain one."""
    moves = []
    for leg in legs:
        move: ScenarioTree = {} if leg.ends == "completed" else {"ends": leg.ends}
        if leg.paused:
            move["guest"] = "paused"
        if leg.ends != "completed":
            # It has to last until it is ended.
            move["migration"] = {"bandwidth": "32MiB/s"}
        moves.append(move)
    return moves if any(moves) or len(moves) > 1 else []
