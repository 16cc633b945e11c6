# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU says of how it slows the guest down: auto-converge and dirty-limit."""

from __future__ import annotations

from collections.abc import Mapping

from harness.migration.qmp import CommandError, Monitor
from harness.verdict.throttle import ThrottleLook, VcpuLimit


def look_at_throttle(monitor: Monitor, at: float, *, limits: bool = False) -> ThrottleLook:
    """Ask this QEMU, a migration's source.

    ``at``: the time of the event stream; ``limits``: ask for what dirty-limit has set, too, which
    only a QEMU with KVM's dirty ring can tell.  Raises what :meth:`Monitor.execute` raises.
    """
    answer = monitor.execute("query-migrate")
    # A QEMU that limits nobody answers with an error.
    there = vcpu_limits(monitor) if limits else ()
    return throttle_in(answer, at, limits=there)


def throttle_in(
    answer: object, at: float, *, limits: tuple[VcpuLimit, ...] = (), over: bool = False
) -> ThrottleLook:
    """From an answer to ``query-migrate``; what is not said counts as zero."""
    numbers = answer if isinstance(answer, Mapping) else {}
    ram = numbers.get("ram")
    syncs = ram.get("dirty-sync-count") if isinstance(ram, Mapping) else 0
    return ThrottleLook(
        at=at,
        syncs=_int(syncs),
        percent=_int(numbers.get("cpu-throttle-percentage")),
        sleep_us=_int(numbers.get("dirty-limit-throttle-time-per-round")),
        limits=limits,
        over=over,
    )


def vcpu_limits(monitor: Monitor) -> tuple[VcpuLimit, ...]:
    """What ``query-vcpu-dirty-limit`` lists: nothing where nobody is limited."""
    try:
        answer = monitor.execute("query-vcpu-dirty-limit")
    except CommandError:
        return ()
    rows = answer if isinstance(answer, list) else []
    return tuple(
        VcpuLimit(_int(row.get("cpu-index")), _int(row.get("limit-rate")), _int(row.get("current-rate")))
        for row in rows
        if isinstance(row, Mapping)
    )


def _int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
