# SPDX-License-Identifier: GPL-2.0-or-later
"""Which runs are made, in which order.  Pure: the same arguments, the same plan.

A *point* is a scenario with an amount of memory and an arm.  Every repeat visits
every point once (a randomised complete block design): a machine that grows slower
in the course of an hour grows slower for every arm alike.  Within a repeat the
arms of one scenario and size run one after the other, in an order that is drawn
anew each time, on the same seed: the guests that are compared hold the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.units import format_size

#: Seeds of runs are kept in the range that a scenario takes.
_SEEDS: Final = 2**63


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """What is measured.  ``memory`` in bytes; None: as the scenario has it."""

    scenario: str
    memory: int | None
    arm: str

    @property
    def label(self) -> str:
        """For folders and for people: ``freed-2GiB-info``."""
        size = "" if self.memory is None else f"-{format_size(self.memory)}"
        return f"{self.scenario.rpartition('/')[2].removesuffix('.yaml')}{size}-{self.arm}"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run: its place in the order (from 1), its repeat (from 1), and the seed of its workload."""

    number: int
    repeat: int
    point: Point
    seed: int

    @property
    def folder(self) -> str:
        """The name of its run folder: sorts in the order of the plan."""
        return f"{self.number:03}-{self.point.label}-{self.repeat}"


def make_points(scenarios: Sequence[str], memories: Sequence[int | None], arms: Sequence[str]) -> list[Point]:
    """Every scenario at every size in every arm, each once, in the order given."""
    return list(
        dict.fromkeys(
            Point(scenario, memory, arm) for scenario in scenarios for memory in memories for arm in arms
        )
    )


def make_plan(points: Sequence[Point], repeat: int, seed: int) -> list[PlannedRun]:
    """Every point ``repeat`` times, interleaved and shuffled."""
    groups: dict[tuple[str, int | None], list[Point]] = {}
    for point in points:
        groups.setdefault((point.scenario, point.memory), []).append(point)
    generator = random.Random(seed)
    runs: list[PlannedRun] = []
    for number in range(1, repeat + 1):
        order = list(groups.values())
        generator.shuffle(order)
        for group in order:
            arms, content = list(group), generator.randrange(_SEEDS)
            generator.shuffle(arms)
            runs += [
                PlannedRun(len(runs) + index, number, point, content)
                for index, point in enumerate(arms, start=1)
            ]
    return runs
