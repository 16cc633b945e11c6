# SPDX-License-Identifier: GPL-2.0-or-later
"""Who held the locks on the disks' images at each moment of a migration.

A disk that two QEMUs may write to at once is lost sooner or later, whatever memory
holds.  QEMU's own locks say who may: the source until it stops the guest for good,
nobody while the state of the devices travels, and the destination from its resumption
on (in postcopy that may be before the source has completed); after a migration that was
given up, the source again.  Pure: the looks are taken by :mod:`harness.run.sides`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND, MigrationOutcome

_NONE: Final[Mapping[str, str]] = MappingProxyType({})

#: ``begun``: before the source's QEMU migrates.  ``completed``: it says so, and is still there.
#: ``resumed``: the guest runs on the destination.  ``given-up``: the guest is to stay.
LockMoment = Literal["begun", "completed", "resumed", "given-up"]


@dataclass(frozen=True, slots=True)
class LockLook:
    """The images that each QEMU holds for writing at one moment, by an identity: their names.

    None: there is no such QEMU, or nobody can look at it.
    """

    moment: LockMoment
    source: Mapping[str, str] | None = None
    destination: Mapping[str, str] | None = None


def lock_findings(
    looks: Sequence[LockLook], outcome: MigrationOutcome, copies: Mapping[str, str] = _NONE
) -> list[Finding]:
    """Every look at which the locks are not where the guest is; none if the source held no lock at all.

    ``copies``: images that the destination has copies of, and those, by name.
    """
    disks = next((look.source for look in looks if look.moment == "begun"), None)
    if not disks:
        return []
    texts = {text: None for look in looks for text in _wrong(look, disks, outcome, copies)}
    return [Finding("locks-disagree", KIND, text) for text in texts]


def _wrong(
    look: LockLook, disks: Mapping[str, str], outcome: MigrationOutcome, copies: Mapping[str, str]
) -> Iterator[str]:
    source, destination = look.source or {}, look.destination or {}
    for disk, name in disks.items():
        if disk in source and disk in destination:
            yield f"both QEMUs hold the lock for writing on {name}"
        elif look.moment == "completed" and disk in source:
            yield f"the source's QEMU has completed, and still holds the lock for writing on {name}"
        elif look.moment == "completed" and disk in destination and not outcome.let_go:
            yield f"the destination's QEMU holds the lock for writing on {name} before it runs the guest"
        elif look.moment == "given-up" and disk in destination:
            yield f"the destination's QEMU holds the lock for writing on {name}, though the guest stays"
    for side, runs in (("source", outcome.source.runs), ("destination", outcome.destination.runs)):
        goes_on = look.moment == ("given-up" if side == "source" else "resumed")
        held = look.source if side == "source" else look.destination
        if goes_on and runs and held is not None:
            for disk in disks.keys() - held.keys():
                if side == "source" or copies.get(disks[disk]) not in held.values():
                    yield f"the {side}'s QEMU runs the guest without the lock for writing on {disks[disk]}"
