# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a migration still moves: what QEMU says of it must change within a stated time.

    watch = ProgressWatch(seconds=60, now=time.monotonic())
    watch.note(Sample.of(answer, jobs, begun=True), time.monotonic())
    watch.stood_still(time.monotonic())     # None, or words for the user

Pure: who asks QEMU, and when, is the follower's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: After these QEMU does no more for a migration.
_ENDED: Final = frozenset({"completed", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class Sample:
    """What changes in ``query-migrate`` and ``query-block-jobs`` while a migration moves."""

    status: str = ""
    transferred: int = 0
    syncs: int = 0
    remaining: int = 0
    #: Bytes of disks that are copied along, by now.
    copied: int = 0

    @classmethod
    def of(cls, answer: object, jobs: object = (), *, begun: bool = True) -> Sample:
        """From QEMU's answers; what it does not say counts as zero.

        ``begun``: whether QEMU has begun with this migration.  Until then, as while disks are copied ahead of
        memory, what it says is of the one before.
        """
        listed = [job for job in jobs if isinstance(job, Mapping)] if isinstance(jobs, list) else []
        copied = sum(_int(job.get("offset")) for job in listed)
        if not begun or not isinstance(answer, Mapping):
            return cls(copied=copied)
        ram = answer.get("ram")
        numbers = ram if isinstance(ram, Mapping) else {}
        return cls(
            status=str(answer.get("status", "")),
            transferred=_int(numbers.get("transferred")),
            syncs=_int(numbers.get("dirty-sync-count")),
            remaining=_int(numbers.get("remaining")),
            copied=copied,
        )


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


class ProgressWatch:
    """Knows since when nothing has changed.  Times are seconds of any one clock."""

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self._sample: Sample | None = None
        self._since = now

    def note(self, sample: Sample, now: float) -> None:
        """QEMU has answered."""
        if sample != self._sample:
            self._sample, self._since = sample, now

    def moved(self, now: float) -> None:
        """Something else shows that the migration goes on: an event, or a hold that the harness answers."""
        self._since = now

    def stood_still(self, now: float) -> str | None:
        """What has stood still for too long, in words; None while nothing has."""
        still = now - self._since
        if still < self.seconds:
            return None
        if self._sample is None:
            return f"QEMU has not answered query-migrate for {still:.0f} s"
        sample = self._sample
        if sample.status in _ENDED:
            return f"QEMU's migration ended {sample.status!r}, and for {still:.0f} s libvirt has not noticed"
        if not sample.status:
            disks = (
                f", and of its disks nothing was copied after {sample.copied} bytes" if sample.copied else ""
            )
            return f"for {still:.0f} s QEMU has not begun to migrate{disks}"
        return (
            f"for {still:.0f} s the migration has stood at {sample.status!r}, {sample.transferred} bytes "
            f"sent in {sample.syncs} bitmap syncs and {sample.remaining} bytes to go"
        )
