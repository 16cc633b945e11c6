# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's half of a workload, for one that needs somebody to talk to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Partner(ABC):
    """Context manager: it is at work while it is entered."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def finish(self, seconds: float) -> None:
        """The guest runs on its last host: see that all goes on there, and come to an end.

        Takes ``seconds`` at most; what does not happen within them is for the verdict.
        """

    @abstractmethod
    def account(self) -> object:
        """What it has found, for the workload's :meth:`~harness.scenario.workloads.base.Workload.facts`."""
