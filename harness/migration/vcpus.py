# SPDX-License-Identifier: GPL-2.0-or-later
"""The vCPUs of a QEMU."""

from __future__ import annotations

from harness.errors import MachineryError
from harness.migration.qmp import Monitor


def count_vcpus(monitor: Monitor) -> int:
    """How many vCPUs a QEMU has now, plugged ones included."""
    answer = monitor.execute("query-cpus-fast")
    if not isinstance(answer, list) or not answer:
        raise MachineryError(f"the {monitor.side} QEMU does not tell its vCPUs: {answer!r}")
    return len(answer)
