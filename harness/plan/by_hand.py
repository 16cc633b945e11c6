# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a person wants a run to stand still: at a failure, in the end, or at moments of its migration."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from harness.errors import InputError
from harness.scenario.actions.module import MODULE_HOLDS
from harness.scenario.moments import MOMENTS
from harness.scenario.problems import did_you_mean
from harness.scenario.script import DEVICE_HOLDS

if TYPE_CHECKING:
    from harness.scenario.load import Scenario

Keep: TypeAlias = Literal["never", "failure", "always"]

KEEPS: Final[tuple[str, ...]] = typing.get_args(Keep)


@dataclass(frozen=True, slots=True)
class PausePoint:
    """A moment of a migration; ``number``: which one of its name, of each migration; None: the first."""

    moment: str
    number: int | None = None

    def __str__(self) -> str:
        """As the command line has it."""
        return self.moment if self.number is None else f"{self.moment}:{self.number}"


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a person wants to look at."""

    keep: Keep = "never"
    pause_at: tuple[PausePoint, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether there may be anything to look at."""
        return self.keep != "never" or bool(self.pause_at)

    @property
    def device_holds(self) -> tuple[str, ...]:
        """The device's holds that it takes."""
        wanted = {point.moment for point in self.pause_at}
        return tuple(name for name in DEVICE_HOLDS if name in wanted)


NOT_BY_HAND: Final = ByHand()


def by_hand(keep: str | None, pause_at: Sequence[str]) -> ByHand:
    """From the command line's words.  Raises :class:`InputError` for what is none of them."""
    chosen = keep or "never"
    if chosen not in KEEPS:
        raise InputError(f"--keep {chosen}: expected one of {', '.join(KEEPS)}")
    return ByHand(typing.cast("Keep", chosen), tuple(_point(word) for word in pause_at))


def _point(word: str) -> PausePoint:
    moment, colon, number = word.partition(":")
    if moment not in MOMENTS:
        raise InputError(
            f"--pause-at {word}: there is no moment {moment!r}",
            hint=f"{did_you_mean(moment, MOMENTS)}there are {', '.join(MOMENTS)}",
        )
    if not colon:
        return PausePoint(moment)
    if not number.isascii() or not number.isdecimal() or not 1 <= int(number[:9]) == int(number):
        raise InputError(f"--pause-at {word}: expected a number from 1 behind the colon, such as pass:2")
    return PausePoint(moment, int(number))


def demand_reachable(hand: ByHand, scenario: Scenario) -> None:
    """Raise :class:`InputError` for a moment to which the scenario cannot come."""
    if scenario.guests > 1:
        words = "a run with several guests does not stand still (--keep, --pause-at): the others would go on"
        raise scenario.wrong("guests", words)
    held = {entry.at for entry in scenario.script}
    postcopy = any(how.switches_on("postcopy-ram") for how in scenario.migrations)
    for point in hand.pause_at:
        why = None
        if point.moment in DEVICE_HOLDS and scenario.arm != "info":
            why = f"the guest is asked for nothing in arm {scenario.arm}"
        elif point.moment in MODULE_HOLDS and point.moment not in held:
            why = f"no entry of its script waits for it (at: {point.moment}), behind a module-hold"
        elif point.moment.startswith("postcopy-") and not postcopy:
            why = "its migration is not switched to postcopy"
        if why is not None:
            raise scenario.wrong("script", f"there is no moment {point.moment} to pause at: {why}")
