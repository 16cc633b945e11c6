# SPDX-License-Identifier: GPL-2.0-or-later
"""For how long a QEMU's threads waited for a processor of the host, while a guest ran.

A guest's timer fires late where the thread that lets it fire, or the vCPU that would notice, stands in
the queue of a busy host.  That is no fault of a migration's.  The host's scheduler counts such waits
(``run_delay`` in /proc/PID/task/TID/schedstat; kernel/sched/stats.h), so how much of a lateness it explains
can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitSample:
    """One look at a QEMU's threads: what each has waited since it began, in seconds.

    ``at``: seconds of the run; ``loop`` is the main loop's thread, ``vcpus`` are by thread.
    """

    at: float
    loop: float
    vcpus: Mapping[int, float]


def longest_wait(samples: Sequence[WaitSample], seconds: float) -> float:
    """The most for which a QEMU's main loop and one of its vCPUs waited in any span of ``seconds``.

    Both count: the one lets the timer fire, the other takes its interrupt.  ``samples`` are of one QEMU, in
    order.  What begins or ends between two of them is counted whole, as nobody knows when it was.
    """
    most, first = 0.0, 0
    for last in samples:
        # The last look that is no later than where the span begins.
        while first + 1 < len(samples) and samples[first + 1].at <= last.at - seconds:
            first += 1
        most = max(most, _between(samples[first], last))
    return most


def _between(first: WaitSample, last: WaitSample) -> float:
    vcpus = (waited - first.vcpus.get(thread, 0.0) for thread, waited in last.vcpus.items())
    return last.loop - first.loop + max(vcpus, default=0.0)
