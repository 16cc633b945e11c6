# SPDX-License-Identifier: GPL-2.0-or-later
"""State that was changed from outside, while the guest stood still on both sides.

A QEMU takes commands after it has sent its devices.  One that plugs a cable out of a NIC raises an
interrupt on a source that the guest has left: it is in what the source saves afterwards, and in nothing
that was sent.  A destination whose guest waits to be resumed can be told to change its memory.
Such a difference is no loss.  It is told from one by who was acted upon and, where the stream was heard, by
what the source had sent:

    whose = changed_sides(source, sent, destination, compare)      # {("apic", 0, "irr[1]"): {"source"}}
    found = explain_by_acts(found, acted, whose)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from harness.devicestate.compare import Comparison, Difference
from harness.devicestate.sections import Section

Changed: TypeAlias = Literal["source", "destination"]
#: Device, instance and field.
Place: TypeAlias = tuple[str, int, str]

_BOTH: Final[frozenset[Changed]] = frozenset(("source", "destination"))
_WHEN: Final[Mapping[Changed, str]] = {
    "source": "after it had sent its devices",
    "destination": "before it had saved them again",
}


@dataclass(frozen=True, slots=True)
class ActedUpon:
    """QMP commands that may change a machine, and came to it when nothing should.

    ``source``: after it had sent its devices.  ``destination``: until what it had loaded was looked at.
    ``unplugged``: devices that the source's QEMU itself had the guest let go of, by their ids.
    """

    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    unplugged: tuple[str, ...] = ()

    def commands(self, side: Changed) -> tuple[str, ...]:
        """Of one side."""
        return self.source if side == "source" else self.destination


def changed_sides(
    source: Sequence[Section],
    sent: Sequence[Section],
    destination: Sequence[Section],
    compare: Callable[[Sequence[Section], Sequence[Section]], Comparison],
) -> Mapping[Place, frozenset[Changed]]:
    """Of each field, which side no longer has it as it was sent.

    ``sent``: from the migration's own stream, as far as it has these devices.
    """
    names = {section.key for section in source} | {section.key for section in destination}
    known = [section for section in sent if section.key in names]
    found: dict[Place, frozenset[Changed]] = {}
    for difference in compare(source, known).differences:
        found[_place(difference)] = frozenset(("source",))
    for difference in compare(known, destination).differences:
        place = _place(difference)
        found[place] = found.get(place, frozenset()) | {"destination"}
    return found


def explain_by_acts(
    found: Comparison, acted: ActedUpon, whose: Mapping[Place, frozenset[Changed]] | None
) -> Comparison:
    """Say of each difference who changed, and why if that side was acted upon.

    ``whose``: None, nobody has heard what was sent.  What was then changed by an act, and what by the
    migration, cannot be told: it is left out of both, and :attr:`Comparison.untold` says so.
    """
    untold: list[str] = []

    def explained(one: Difference) -> Difference:
        if one.reason is not None:
            return one
        changed = whose.get(_place(one), frozenset()) if whose is not None else frozenset()
        one = replace(one, changed=" and ".join(sorted(changed, reverse=True)))
        if whose is not None:
            if not changed or not all(acted.commands(side) for side in changed):
                return one
            return replace(one, reason=_reason(acted, changed))
        sides = frozenset(side for side in _BOTH if acted.commands(side))
        if not sides:
            return one
        untold.append(str(one))
        return replace(one, reason=f"{_reason(acted, sides)}, and nobody heard what had been sent")

    differences = tuple(explained(one) for one in found.differences)
    return replace(found, differences=differences, untold=tuple(untold))


def _reason(acted: ActedUpon, sides: frozenset[Changed]) -> str:
    return " and ".join(
        f"{', '.join(dict.fromkeys(acted.commands(side)))} came to the {side}'s QEMU {_WHEN[side]}"
        for side in sorted(sides, reverse=True)
    )


def _place(difference: Difference) -> Place:
    return difference.device, difference.instance, difference.field
