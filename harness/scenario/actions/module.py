# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions of the guest's module, by its controls for tests: holds of its walk, and ways to go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.errors import MachineryError
from harness.events import Deadline
from harness.scenario.actions.base import ControlAction
from harness.scenario.actions.migration import demand_answers
from harness.scenario.actions.stage import Stage
from harness.scenario.values import Text, as_tuple

ModuleHoldPoint: TypeAlias = Literal["before-walk", "mid-walk", "after-walk"]
#: The guest's module waits here until it is released; the rest of the guest runs.
MODULE_HOLDS: Final = ("before-walk", "mid-walk", "after-walk")

#: The misbehaviour that is about pages of the script's own, and how many ranges the module takes.
REPORT_OWNED: Final = "report-owned"
MOST_SPANS: Final = 16


class ModuleHold(ControlAction):
    """From now on each walk waits at this point until it is released."""

    action: Literal["module-hold"] = "module-hold"
    point: ModuleHoldPoint
    """Where each walk waits."""
    entries: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """mid-walk only: after so many entries of the free lists; null: as the module likes."""

    @model_validator(mode="after")
    def _possible(self) -> ModuleHold:
        if self.entries is not None and self.point != "mid-walk":
            path = {"path": ("entries",)}
            raise PydanticCustomError("in-entry", "only mid-walk is after a number of entries", path)
        return self

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The module's next walk stands there."""
        extra = [] if self.entries is None else [self.entries]
        stage.guest.call("hold", self.point, *extra, deadline=deadline)


class ModuleRelease(ControlAction):
    """Let the walk that waits go on."""

    action: Literal["module-release"] = "module-release"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """That none waits is an error of the script's."""
        if not stage.guest.call("release", deadline=deadline).get("released"):
            raise MachineryError("no walk was held that could have been released")


class ModuleUnhold(ControlAction):
    """Walks wait no more."""

    action: Literal["module-unhold"] = "module-unhold"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """At no point."""
        stage.guest.call("unhold", deadline=deadline)


class QmpAnswersWhileUnheld(ControlAction):
    """The module's walks wait no more; until it has answered, QEMU has to answer as in qmp-answers."""

    action: Literal["qmp-answers-while-unheld"] = "qmp-answers-while-unheld"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """A QEMU that hangs in a queue's handler takes the guest with it: neither waits for the other."""
        before = _answers_sent(stage, deadline)

        def guest() -> None:
            stage.guest.call("unhold", deadline=deadline)
            # The agent answers while the module works, which says to nobody when it is done.
            while _answers_sent(stage, deadline) <= before:
                deadline.check()

        with ThreadPoolExecutor(1, "unheld") as pool:
            answered = pool.submit(guest)
            # A QEMU that was frozen is asked no more: it goes on with its migration, and is gone soon.
            while not (answered.done() or stage.frozen):
                demand_answers(stage)
            answered.result()
        # By now QEMU has had the answer's notification, and handles it before another command.
        demand_answers(stage)


def _answers_sent(stage: Stage, deadline: Deadline) -> int:
    """How many answers the module has put on its queue, by its own count."""
    module = stage.guest.call("stats", deadline=deadline).get("module")
    count = module.get("answers") if isinstance(module, Mapping) else None
    if not isinstance(count, int):
        raise MachineryError("the guest's module does not say how often it has answered")
    return count


class ModuleMisbehave(ControlAction):
    """Have the module do something wrong, from now on."""

    action: Literal["module-misbehave"] = "module-misbehave"
    how: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """What the module calls it; see docs/module.md."""
    numbers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple)] = ()
    """What some ways take; report-owned is given the frames that pages-alloc took."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Which frames are in use, only the script knows."""
        numbers = spans(stage.pages.frames) if self.how == REPORT_OWNED else self.numbers
        stage.guest.call("misbehave", self.how, *numbers, deadline=deadline)


def spans(frames: Sequence[int]) -> list[int]:
    """First frame and length of the first runs of frames, as the module wants them."""
    found: list[int] = []
    for frame in sorted(frames):
        if found and found[-2] + found[-1] == frame:
            found[-1] += 1
        else:
            found += [frame, 1]
    return found[: 2 * MOST_SPANS]


class ModuleBehave(ControlAction):
    """Have the module do nothing wrong any more."""

    action: Literal["module-behave"] = "module-behave"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """From now on."""
        stage.guest.call("behave", deadline=deadline)


class ModuleTake(ControlAction):
    """The module takes pages from the free lists and only reads them; with init_on_alloc=0 nobody writes."""

    action: Literal["module-take"] = "module-take"
    pages: Annotated[int, Field(ge=1, le=65536)]
    """How many."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """It keeps them."""
        stage.guest.call("take", self.pages, deadline=deadline)
