# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a suite's runs in the store while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from harness.errors import FreepageError
from harness.history.record import Batch, BatchKind, add_run, begin_batch, end_batch, kept_run
from harness.history.store import Store
from harness.report.finished import FinishedRun, RunSink, SuiteReport
from harness.terminal import print_error


@dataclass
class HistorySink(RunSink):
    """Each run is kept when it has ended.

    A store that fails is said once, and takes nothing away from the suite: its folder holds all of it, and
    ``freepage history import`` reads that.
    """

    store: Store
    kind: BatchKind = "suite"
    _batch: Batch | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _failed: bool = field(default=False, init=False)

    def begin(self, suite: str, total: int) -> None:  # noqa: ARG002
        """Nothing is kept before the first run has ended."""
        self._batch = Batch(self.kind, suite, "", datetime.now(UTC))

    def finished(self, run: FinishedRun) -> None:
        """Keep it."""
        if self._failed or self._batch is None:
            return
        try:
            with self.store.writing() as connection:
                self._number = self._number or begin_batch(connection, self._batch)
                add_run(connection, self._number, kept_run(run))
        except FreepageError as error:
            self._give_up(error)

    def ended(self, report: SuiteReport) -> None:
        """Say how the suite ended."""
        if self._failed or self._batch is None or not self._number:
            return
        batch = replace(
            self._batch,
            began=report.began,
            shard=report.shard,
            command=report.command,
            seed=report.seed,
            seconds=report.seconds,
            exit_status=report.exit_status,
            interrupted=report.interrupted,
            host=report.host,
        )
        try:
            with self.store.writing() as connection:
                end_batch(connection, self._number, batch)
        except FreepageError as error:
            self._give_up(error)

    def _give_up(self, error: FreepageError) -> None:
        self._failed = True
        print_error(f"freepage: no further run is kept in the history: {error.render()}")
