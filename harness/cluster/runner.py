# SPDX-License-Identifier: GPL-2.0-or-later
"""The runs of a suite on a cluster: handed out as there is room, each counted once.

Dask makes a run again elsewhere when its worker is lost.  What counts is the answer to the order, of which
there is one, whatever became of the workers before.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distributed import CancelledError, KilledWorker

from harness.cluster.artefacts import DEFAULT_MOST, unpack_run
from harness.cluster.client import Cluster
from harness.cluster.order import RunAnswer, RunOrder
from harness.errors import ExitCode, FreepageError, InputError
from harness.events import EventStream
from harness.report.finished import FinishedRun
from harness.suite.engine import RunsWanted
from harness.suite.expand import SuiteRun
from harness.suite.runner import finished_run, replay_words, unmade_run
from harness.toolchain.cache import Cache
from harness.toolchain.care import entries

if TYPE_CHECKING:
    from distributed import Future


@dataclass(frozen=True, slots=True)
class ClusterEngine:
    """Makes the runs of a suite on a cluster that is connected.

    ``most``: bytes of each run's files that come back.
    """

    cluster: Cluster
    most: int = DEFAULT_MOST
    elsewhere: bool = field(default=True, init=False)

    def hand_out(self, since: float, events: EventStream) -> None:
        """Give the workers what was built, or used, here since then (seconds since 1970)."""
        cache = Cache(None, events)
        self.cluster.hand_out(entries(cache, since), cache, events)

    def runner(self, wanted: RunsWanted) -> ClusterRunner:
        """Who makes these runs.

        Raises :class:`InputError` if no worker can hold one of them, and it is not optional.
        """
        return ClusterRunner(self, wanted)


class ClusterRunner:
    """Use :meth:`run` once; as :class:`harness.suite.runner.SuiteRunner`."""

    def __init__(self, engine: ClusterEngine, wanted: RunsWanted) -> None:
        self._cluster = engine.cluster
        self._most = engine.most
        self._places = wanted.places
        self._sink = wanted.sink
        self._stops = wanted.stops
        self._left = list(wanted.runs)
        self._out: dict[Future[RunAnswer], SuiteRun] = {}
        self._told: queue.SimpleQueue[str | Future[RunAnswer]] = queue.SimpleQueue()
        # More than can be held: a worker that has room must not wait for us.
        cpus = sum(int(worker.resources.get("cpus", 1)) for worker in self._cluster.workers)
        self._window = wanted.jobs if wanted.jobs is not None else 2 * cpus + len(self._cluster.workers)
        self._stopped = False
        self.interrupted = False
        self.done: list[FinishedRun] = []
        self._too_large = [run for run in wanted.runs if not self._cluster.fitting(self._demands(run))]
        hard = [run for run in self._too_large if not run.optional]
        if hard:
            lines = (f"{run.name}: no worker has room for it: it takes {_words(run)}" for run in hard)
            raise InputError("\n".join(lines), hint="freepage cluster show lists what the workers have")

    @property
    def waiting(self) -> list[SuiteRun]:
        """What has not been begun."""
        return self._left

    def run(self, more: Iterator[Sequence[SuiteRun]] | None = None) -> list[FinishedRun]:
        """Make the runs; whenever there are few left, those that ``more`` gives, too."""
        for run in self._too_large:
            self._left.remove(run)
            self._tell(unmade_run(run, "skipped", f"no worker has room: it takes {_words(run)}"))
        with self._cluster.told_of_begun(self._told.put):
            try:
                while True:
                    self._ask(more)
                    if not self._out:
                        return self.done
                    heard = self._told.get()
                    if isinstance(heard, str):
                        self._began(heard)
                    else:
                        self._tell(self._finish(heard))
            except KeyboardInterrupt:
                self.interrupted = True
                return self.done
            finally:
                self._stopped = True
                self._left += self._out.values()
                # The workers end what they have begun of it.
                self._cluster.client.cancel(list(self._out), force=True)

    def _ask(self, more: Iterator[Sequence[SuiteRun]] | None) -> None:
        while not self._stopped and len(self._out) < self._window:
            if not self._left and more is not None:
                self._left += next(more, ())
            if not self._left:
                return
            run = self._left.pop(0)
            order = RunOrder(run.name, run.scenario.to_yaml(), run.tools, run.nested, run.timeout, self._most)
            future = self._cluster.submit(order, self._demands(run))
            self._out[future] = run
            future.add_done_callback(self._told.put)

    def _demands(self, run: SuiteRun) -> dict[str, float]:
        return self._cluster.demands(run.needs, kvm=run.scenario.accelerator == "kvm" and not run.nested)

    def _began(self, name: str) -> None:
        run = next((run for run in self._out.values() if run.name == name), None)
        if run is not None:
            self._sink.started(name, self._places(run).folder)

    def _finish(self, future: Future[RunAnswer]) -> FinishedRun:
        run = self._out.pop(future)
        try:
            answer = future.result()
        except KilledWorker as error:
            return unmade_run(run, "error", f"its worker was lost, again and again: {error}")
        except CancelledError:
            return unmade_run(run, "error", "the cluster has given it up")
        except Exception as error:
            return unmade_run(run, "error", f"its worker failed: {error}")
        finally:
            # What a worker holds for us in memory.
            future.release()
        return self._bring_back(run, answer)

    def _bring_back(self, run: SuiteRun, answer: RunAnswer) -> FinishedRun:
        if answer.refused:
            cannot = answer.status == ExitCode.INPUT
            made = unmade_run(run, "skipped" if cannot and run.optional else "error", answer.refused)
            more: dict[str, object] = {"worker": answer.worker}
            if cannot and not run.optional:
                more |= {"outcome": "refused", "exit_status": int(ExitCode.INPUT)}
            return made.model_copy(update=more)
        place = self._places(run)
        place.scenario.write_text(run.scenario.to_yaml(), encoding="utf-8")
        place.log.write_bytes(answer.said)
        try:
            if answer.files:
                unpack_run(answer.files, place.folder)
        except FreepageError as error:
            return unmade_run(run, "error", error.render())
        made = finished_run(run, place, answer.status, answer.told, answer.began, answer.seconds)
        # Its own words name folders of the worker's.
        return made.model_copy(update={"worker": answer.worker, "replay": replay_words(run, place)})

    def _tell(self, run: FinishedRun) -> None:
        self.done.append(run)
        self._sink.finished(run)
        if self._stops(run):
            self._stopped = True


def _words(run: SuiteRun) -> str:
    from harness.units import human_size

    kvm = ", KVM" if run.scenario.accelerator == "kvm" and not run.nested else ""
    return f"{human_size(run.needs.memory)}, {run.needs.cpus} CPUs{kvm}"
