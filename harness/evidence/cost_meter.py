# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts' costs of a migration: processor time and memory of both QEMUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.hosts.process import Usage, usage_of
from harness.report.costs import Cost, ProcessCost

Ask = Callable[[int], Usage | None]


class CostMeter:
    """Told of a migration's begin, switch-over and completion, it knows what was used in between."""

    def __init__(self, ask: Ask = usage_of) -> None:
        self._ask = ask
        self._first: dict[str, tuple[int, Usage]] = {}
        self._last: dict[str, Usage] = {}

    def begin(self, side: str, pid: int) -> None:
        """From here on the QEMU on ``side`` is charged.  Of several begins the first counts."""
        usage = self._ask(pid)
        if usage is not None:
            self._first.setdefault(side, (pid, usage))

    def look(self) -> None:
        """How much it is by now.  Called where threads are about to end, and at the very end."""
        for side, (pid, _) in self._first.items():
            usage = self._ask(pid)
            if usage is None:
                continue
            before = self._last.get(side)
            if before is not None:
                # A thread that has ended is no longer listed, and has used what it used.
                usage = replace(
                    usage,
                    vcpu=max(usage.vcpu, before.vcpu),
                    migration=max(usage.migration, before.migration),
                )
            self._last[side] = usage

    def cost(self) -> Cost | None:
        """What was used; None if nobody could be asked."""
        parts = {
            side: _part(self._last[side].since(first))
            for side, (_, first) in self._first.items()
            if side in self._last
        }
        return Cost(**parts) if parts else None


def _part(usage: Usage) -> ProcessCost:
    return ProcessCost(
        cpu_seconds=round(usage.cpu, 3),
        vcpu_seconds=round(usage.vcpu, 3),
        migration_seconds=round(usage.migration, 3),
        peak_resident_bytes=usage.peak_resident,
    )
