# SPDX-License-Identifier: GPL-2.0-or-later
"""How a QEMU slowed the guest down during a migration, and whether it let go of it in the end.

Two capabilities do so: auto-converge has every vCPU sleep for a share of the time, and dirty-limit
has those sleep that write more than they may.  Both begin when a bitmap sync finds that more has been written
than a share of what was sent, and not before the second such sync (migration_trigger_throttle() in QEMU's
migration/ram.c).  A guest that is slowed down when a migration begins, or when QEMU has cleaned up after one,
was forgotten.  Pure: the looks are taken by :mod:`harness.run.follow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.verdict.finding import Finding

#: Capabilities by which QEMU slows a guest down.
THROTTLES: Final = ("auto-converge", "dirty-limit")

#: Syncs that a migration has made when none of its own can have begun to slow the guest down: the first
#: is in its setup, and a second one is needed.
_NOT_YET: Final = 1


@dataclass(frozen=True, slots=True)
class VcpuLimit:
    """How much one vCPU may write, by ``query-vcpu-dirty-limit``; in MB/s, as QEMU counts."""

    cpu: int
    limit: int
    current: int


@dataclass(frozen=True, slots=True)
class ThrottleLook:
    """What the source's QEMU said at one moment.

    ``at`` is in seconds of the event stream, ``percent`` the share of the time for which vCPUs sleep,
    ``sleep_us`` the longest sleep by dirty-limit at one filling of the ring.  ``over``: QEMU had cleaned up
    after the migration.
    """

    at: float
    syncs: int
    percent: int = 0
    sleep_us: int = 0
    limits: tuple[VcpuLimit, ...] = ()
    over: bool = False

    @property
    def slows(self) -> bool:
        """Whether the guest was slowed down, or limited in what it may write."""
        return bool(self.percent or self.limits)


@dataclass(frozen=True, slots=True)
class Throttling:
    """How the last migration slowed the guest down: a fact for the rules."""

    most_percent: int


def throttle_findings(looks: Sequence[ThrottleLook]) -> list[Finding]:
    """Where a QEMU slows the guest down that no migration of its own can have begun to, or has ended."""
    for look in looks:
        if look.slows and not look.over and look.syncs <= _NOT_YET:
            text = f"the migration had hardly begun, and the source's QEMU {_words(look)}, from before it"
            return [Finding("throttle-kept", "outcome", text)]
    for look in looks:
        # What dirty-limit has set QEMU leaves to a source that is about to end.
        if look.over and look.percent:
            text = f"the migration was over, and the source's QEMU still {_words(look)}"
            return [Finding("throttle-kept", "outcome", text)]
    return []


def not_slowed(
    looks: Sequence[ThrottleLook], capabilities: Sequence[str], *, wanted: bool | None = None
) -> str | None:
    """Why a migration has not shown that it slows the guest down, in words; None: it has, or need not.

    ``capabilities``: what was on.  ``wanted``: None is where one of those that do so was.
    """
    on = [name for name in THROTTLES if name in capabilities]
    seen = any(look.slows for look in looks if not look.over and look.syncs > _NOT_YET)
    if seen or not (bool(on) if wanted is None else wanted):
        return None
    what = f"{on[0]} was on, and " if on else ""
    return f"{what}the source's QEMU has not slowed the guest down (throttle-not-seen)"


def most_percent(looks: Sequence[ThrottleLook]) -> int:
    """For how much of the time vCPUs slept at most, in percent."""
    return max((look.percent for look in looks), default=0)


def _words(look: ThrottleLook) -> str:
    if look.percent:
        return f"had the guest's vCPUs sleep for {look.percent} % of the time"
    most = max(limit.limit for limit in look.limits)
    return f"limited the guest's vCPUs to {most} MB/s"
