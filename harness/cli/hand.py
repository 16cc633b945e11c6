# SPDX-License-Identifier: GPL-2.0-or-later
"""Options by which a run stands still for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import InputError

if TYPE_CHECKING:
    from harness.plan.by_hand import ByHand


def _keeps() -> list[str]:
    from harness.plan.by_hand import KEEPS

    return list(KEEPS)


def _moments() -> list[str]:
    from harness.scenario.moments import MOMENTS

    return list(MOMENTS)


KeepOption = Annotated[
    str | None,
    typer.Option(
        metavar="never|failure|always",
        help="Stand still with both QEMUs when something is wrong, or always, and say how to look at them.",
        autocompletion=_keeps,
    ),
]
PauseAt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MOMENT[:N]",
        help="Stand still at a moment of the migration, such as pass:2 or answer; repeatable.",
        autocompletion=_moments,
    ),
]


def wanted_by_hand(
    scenarios: Sequence[str], keep: str | None, pause_at: Sequence[str], *, nested: bool
) -> ByHand:
    """What the options ask for.

    Raises :class:`InputError` for words that are none, and unless there is one run, in a lab of this machine.
    """
    from harness.plan.by_hand import by_hand

    hand = by_hand(keep, pause_at)
    if not hand.wanted:
        return hand
    if len(scenarios) != 1:
        raise InputError(f"--keep and --pause-at take one scenario, and not {len(scenarios)}")
    if nested:
        raise InputError(
            "--keep and --pause-at have nothing to say beside --nested: its machine has no terminal",
            hint="freepage nested shell is a shell in such a machine",
        )
    return hand
