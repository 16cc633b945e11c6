# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs of a migration, as they come."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import MachineryError
from harness.migration.qmp import Monitor


class Qemus:
    """The monitors of both sides: the destination's is there once the migration is about to begin."""

    def __init__(self) -> None:
        self._monitors: dict[str, Monitor] = {}
        #: Connects to the destination's QEMU, once that is there; None: whoever migrates does it.
        self.connect: Callable[[], Monitor] | None = None

    def connected(self, side: str, monitor: Monitor) -> None:
        """The QEMU of a side (``source`` or ``destination``) is there."""
        self._monitors[side] = monitor

    @property
    def source(self) -> Monitor:
        """The one that the guest leaves."""
        return self._side("source")

    @property
    def destination(self) -> Monitor:
        """The one that the guest goes to."""
        if "destination" not in self._monitors and self.connect is not None:
            return self.connect()
        return self._side("destination")

    def _side(self, side: str) -> Monitor:
        if side not in self._monitors:
            raise MachineryError(f"there is no QEMU on the {side} yet")
        return self._monitors[side]
