# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU slowed the guest down during a migration, as ``result.json`` has it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.part import Part
from harness.verdict.throttle import ThrottleLook, most_percent


class ThrottleStep(Part):
    """What changed, and when."""

    seconds: float
    """Since the first look at this migration."""
    syncs: int
    """Bitmap syncs until then."""
    percent: int
    """auto-converge: for how much of the time the guest's vCPUs sleep."""
    sleep_us: int
    """dirty-limit: the longest sleep of a vCPU at one filling of its ring, in microseconds."""
    limits: list[int]
    """dirty-limit: how much each vCPU may write, in MB/s; empty: nobody is limited."""
    over: bool
    """QEMU has cleaned up after the migration."""


class Throttle(Part):
    """By the source's own word, at the migration's begin, after each bitmap sync, and at its end."""

    percent_max: int
    """The most of steps."""
    looks: int
    """How often it was asked."""
    steps: list[ThrottleStep]
    """The first look, each that differs from the one before, and the last."""

    @classmethod
    def of(cls, looks: Sequence[ThrottleLook]) -> Throttle | None:
        """None: nothing slows the guest down, nor was asked to."""
        if not looks:
            return None
        steps = list[ThrottleStep]()
        for number, look in enumerate(looks):
            step = ThrottleStep(
                seconds=round(look.at - looks[0].at, 3),
                syncs=look.syncs,
                percent=look.percent,
                sleep_us=look.sleep_us,
                limits=[one.limit for one in look.limits],
                over=look.over,
            )
            if not steps or number == len(looks) - 1 or _said(step) != _said(steps[-1]):
                steps.append(step)
        return cls(percent_max=most_percent(looks), looks=len(looks), steps=steps)

    @property
    def words(self) -> str:
        """For people."""
        said = [f"{self.percent_max} % at most"] if self.percent_max else []
        limits = [limit for step in self.steps for limit in step.limits]
        if limits:
            longest = max(step.sleep_us for step in self.steps)
            said.append(f"each vCPU to {max(limits)} MB/s, with sleeps of up to {longest} us")
        return ", ".join(said) or "not at all"


def _said(step: ThrottleStep) -> tuple[object, ...]:
    return step.percent, step.sleep_us, step.limits, step.over
