# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``result.json`` that say what a migration cost, beside bytes and time.

All of it is null where nobody measured it: a QEMU on a machine that was not
looked at, a workload that does no work, a guest without the module.
"""

from __future__ import annotations

from harness.report.part import Part


class ProcessCost(Part):
    """What one QEMU took from the migration's begin to its completion."""

    cpu_seconds: float
    """Processor time of all of QEMU's threads."""
    vcpu_seconds: float
    """Of these, the threads that run the guest's processors."""
    migration_seconds: float
    """The part of ``cpu_seconds`` that the threads which migrate took."""
    peak_resident_bytes: int
    """The most that was resident since it started, the guest's memory included."""


class Cost(Part):
    """What both QEMUs took."""

    source: ProcessCost | None = None
    """The one that the guest left."""
    destination: ProcessCost | None = None
    """The one that it went to."""


class WindowRate(Part):
    """The guest in one window of time, by its own clock, which stands while it is stopped."""

    seconds: float
    """Length of the window."""
    work: int
    """Units of work that the workload did in it."""
    lowest_free_bytes: int
    """MemFree at its lowest."""
    longest_gap_ms: float
    """The longest time between two samples: how long nothing else ran."""

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.work / self.seconds if self.seconds else 0.0


class Work(Part):
    """What the guest got done around its migration."""

    unit: str
    """What is counted; empty for a workload that does no work."""
    before: WindowRate | None = None
    """Before the migration began."""
    during: WindowRate | None = None
    """From the migration's begin to the guest's stop at switch-over."""
    after: WindowRate | None = None
    """After it was resumed on the destination."""


class Walk(Part):
    """The guest's walks over its free lists, by the module's own counters."""

    walks: int
    """Walks over all lists, since the module was loaded."""
    longest_ms: float
    """The longest walk."""
    answer_ms: float
    """The last: from the request to its last chunk."""
    longest_hold_us: float
    """The longest time for which a zone's lock was held."""
    pages_reported: int
    """Bits in the chunks that were sent."""
