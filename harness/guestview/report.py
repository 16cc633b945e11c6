# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload said of itself, when, and what the host knows of the time in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import MachineryError
from harness.guestview.waits import WaitSample


@dataclass(frozen=True, slots=True)
class Report:
    """An answer to ``report``.  ``asked``, ``answered``: in seconds of the run."""

    said: Mapping[str, object]
    asked: float
    answered: float

    def number(self, key: str) -> int:
        """A number of it.  Raises :class:`MachineryError` if there is none."""
        value = self.said.get(key)
        if not isinstance(value, int):
            raise self._strange(f"no number {key!r}")
        return value

    def numbers(self, key: str, count: int) -> Sequence[int]:
        """A list of it, of so many numbers.  Raises :class:`MachineryError` if there is none."""
        value = self.said.get(key)
        if not isinstance(value, list) or len(value) != count or not all(isinstance(v, int) for v in value):
            raise self._strange(f"no {count} numbers {key!r}")
        return value

    def word(self, key: str) -> str:
        """A text of it.  Raises :class:`MachineryError` if there is none."""
        value = self.said.get(key)
        if not isinstance(value, str):
            raise self._strange(f"no text {key!r}")
        return value

    def _strange(self, what: str) -> MachineryError:
        return MachineryError(f"the workload's report has {what}: {dict(self.said)!r}")


@dataclass(frozen=True, slots=True)
class Pause:
    """A span in which no QEMU ran the guest, in seconds of the run."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Aftermath:
    """All that the host knows of a workload when its guest has moved, and the workload has stopped."""

    seed: int
    before: Report
    """From before the first migration."""
    after: Report
    pauses: tuple[Pause, ...]
    """Between the two, in order."""
    accelerator: Literal["kvm", "tcg"]
    disk: Path | None = None
    """The image of its disk, where it has one to write to."""
    partner: object = None
    """What the host's half of the workload has found; see :mod:`harness.guestview.partner`."""
    patience: float = 1.0
    """How many times as long everything may take here; see :func:`harness.events.patience`."""
    waits: Sequence[Sequence[WaitSample]] = ()
    """What the threads of each QEMU have waited for the host's processors meanwhile; for a workload that is
    :attr:`~harness.scenario.workloads.base.Workload.punctual`."""
