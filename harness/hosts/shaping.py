# SPDX-License-Identifier: GPL-2.0-or-later
"""Bandwidth of the migration wire, by the kernel's token bucket (tbf)."""

from __future__ import annotations

from typing import Any, Final

from harness.errors import MachineryError

#: A veth hands over segments of up to 64 KiB at once; a smaller bucket would never let one through whole.
_SMALLEST_BURST: Final = 128 << 10

#: How long a packet may wait before it is dropped, in seconds.
_PATIENCE: Final = 0.05


def bucket(bandwidth: int) -> tuple[int, int]:
    """Burst and queue, in bytes, for a bandwidth in bytes a second.

    The bucket holds what a timer tick's worth (10 ms, the slowest kernel
    configuration) lets through, so that the rate is reached.
    """
    burst = max(_SMALLEST_BURST, bandwidth // 100)
    return burst, burst + int(bandwidth * _PATIENCE)


def shape(route: Any, link: int, bandwidth: int) -> None:
    """Let ``bandwidth`` bytes a second leave through ``link``."""
    burst, limit = bucket(bandwidth)
    try:
        route.tc("add", "tbf", link, 0, rate=bandwidth, burst=burst, limit=limit)
    except Exception as error:
        raise MachineryError(
            f"cannot shape the migration link to {bandwidth} bytes a second: {error}",
            hint="sudo modprobe sch_tbf, or leave the bandwidth to QEMU",
        ) from error
