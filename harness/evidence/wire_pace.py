# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the source sent before it stopped its guest, by what a tap saw pass: against its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from harness.events import Event
from harness.hosts.tap import TIMES, TIMES_ENDING
from harness.verdict.wire import WirePace

_SOURCE: Final = "source.qmp"


def wire_pace(
    folder: Path, history: Sequence[Event], limit: int | None, left: int | None = None
) -> WirePace | None:
    """From the migration's setup to the last stop of its guest, by QEMU's own stamps of both.

    ``history``: events from the migration's beginning on.  ``limit``: bytes a second.  ``left``: bytes that
    the limit on the pause leaves for after the stop.  None: there is no limit, or the guest was not stopped
    by the migration.
    """
    if limit is None:
        return None
    begun = [_at(one) for one in history if one.kind == "MIGRATION" and _status(one) == "setup"]
    stopped = [_at(one) for one in history if one.kind == "STOP" and one.source == _SOURCE]
    if not begun or not stopped or begun[0] is None or stopped[-1] is None or stopped[-1] <= begun[0]:
        return None
    passed = sum(_passed(path, stopped[-1]) for path in folder.glob(f"*{TIMES_ENDING}"))
    return WirePace(passed, stopped[-1] - begun[0], limit, left)


def _passed(path: Path, until: float) -> int:
    """Bytes of a connection that had come by then, at least."""
    data = path.read_bytes()
    seen = np.frombuffer(data, np.dtype(TIMES), len(data) // np.dtype(TIMES).itemsize)
    before = seen["bytes"][seen["at"] <= until]
    return int(before.max(initial=0))


def _status(event: Event) -> object:
    data = event.data.get("data")
    return data.get("status") if event.source == _SOURCE and isinstance(data, Mapping) else None


def _at(event: Event) -> float | None:
    at = event.data.get("at")
    return at if isinstance(at, float) else None
