# SPDX-License-Identifier: GPL-2.0-or-later
"""The side that asks: it finds the workers, compares versions, and hands out what is built.

with Cluster(address, tls) as cluster:
cluster.hand_out(entries, cache, events)
future = cluster.submit(order, needs)
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from distributed import Client

from harness import __version__
from harness.cluster import work
from harness.cluster.order import RunAnswer, RunOrder, WorkerFacts
from harness.cluster.security import demand_safe, security_of
from harness.cluster.serve import find_scheduler, host_of
from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.suite.needs import Resources
from harness.toolchain.cache import Cache
from harness.toolchain.care import CacheEntry
from harness.toolchain.parcel import pack_entries

if TYPE_CHECKING:
    from distributed import Future

#: A scheduler on a busy machine, across a network, answers within so many seconds.
CONNECT_SECONDS: Final = 20
#: A build is handed out in pieces of so many bytes; from worker to worker, not each from here.
PARCEL_PIECE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ClusterWorker:
    """A worker as the scheduler knows it; ``resources`` in Dask's words (:mod:`harness.cluster.serve`)."""

    address: str
    facts: WorkerFacts
    resources: Mapping[str, float]

    def holds(self, needed: Mapping[str, float]) -> bool:
        """Whether a run that takes ``needed`` has room here while nothing else runs."""
        return all(self.resources.get(name, 0.0) >= amount for name, amount in needed.items())


class Cluster:
    """A connection to a scheduler, while it is entered.

    ``named``: an address, or the file of a scheduler.  ``tls``: the folder of certificates.
    """

    def __init__(self, named: str, tls: Path | None = None) -> None:
        self.address = find_scheduler(named)
        demand_safe(host_of(self.address), tls, f"the scheduler {self.address}")
        self._security = security_of(tls)
        self._client: Client | None = None
        self._workers: tuple[ClusterWorker, ...] = ()

    def __enter__(self) -> Cluster:
        try:
            self._client = Client(
                self.address,
                security=self._security or {},
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                direct_to_workers=False,
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise MachineryError(
                f"no scheduler answers at {self.address}: {error}",
                hint="freepage cluster scheduler starts one",
            ) from error
        try:
            self._workers = self._find_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def client(self) -> Client:
        """Dask's own."""
        assert self._client is not None
        return self._client

    @property
    def workers(self) -> tuple[ClusterWorker, ...]:
        """Those that were there when this was entered; others may come."""
        return self._workers

    def _find_workers(self) -> tuple[ClusterWorker, ...]:
        """Raises :class:`InputError` for workers of another version, before anything is asked of them."""
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        if not known:
            raise InputError(
                f"the scheduler {self.address} has no worker", hint="freepage cluster worker starts one"
            )
        answers = self.client.run(work.worker_facts, on_error="return")
        mine = (__version__, work.code_digest())
        wrong, found = [], []
        for address, facts in answers.items():
            name = known.get(address, {}).get("name", address)
            if not isinstance(facts, WorkerFacts):
                wrong.append(f"{name}: {facts}")
            elif (facts.version, facts.code) != mine:
                wrong.append(f"{name}: {facts.version} ({facts.code})")
            else:
                resources = known.get(address, {}).get("resources", {})
                found.append(ClusterWorker(address, facts, resources))
        if wrong:
            raise InputError(
                f"workers have another freepage-testbed than this one, {mine[0]} ({mine[1]}): "
                + "; ".join(wrong),
                hint="install the same on all machines, and start their workers anew",
            )
        return tuple(found)

    def hand_out(self, entries: Sequence[CacheEntry], cache: Cache, events: EventStream) -> None:
        """Put what is built here into each cache of the workers' that has it not; by hash, so only once."""
        wanted = [(entry.kind, entry.key) for entry in entries]
        one_each = {worker.facts.cache: worker.address for worker in self._workers}
        lacking = self.client.run(work.lacking_entries, wanted, workers=list(one_each.values()))
        missing = {address: set(map(tuple, found)) for address, found in lacking.items() if found}
        if not missing:
            return
        with events.step("hand-out", caches=len(missing)) as step:
            total = 0
            for number, entry in enumerate(entries):
                takers = [place for place, found in missing.items() if (entry.kind, entry.key) in found]
                if takers:
                    total += self._send(entry, cache, takers)
                events.emit("progress", step="hand-out", done=number + 1, total=len(entries))
            step.note(bytes=total)

    def _send(self, entry: CacheEntry, cache: Cache, takers: Sequence[str]) -> int:
        token = secrets.token_hex(8)
        sent = 0
        with tempfile.TemporaryDirectory(prefix="freepage-") as folder:
            parcel = Path(folder, "parcel")
            for _ in pack_entries(cache, parcel, [entry]):
                pass
            with parcel.open("rb") as file:
                while piece := file.read(PARCEL_PIECE):
                    # Dask hands it from one worker to the next: the way from here is gone once.
                    held = self.client.scatter(piece, workers=list(takers), broadcast=True, hash=False)
                    self._on_each(takers, work.take_piece, token, held, first=sent == 0)
                    sent += len(piece)
            self._on_each(takers, work.take_in, token)
        return sent

    def _on_each(self, takers: Sequence[str], call: Callable[..., Any], *words: Any, **more: Any) -> None:
        futures = [
            self.client.submit(call, *words, workers=[taker], allow_other_workers=False, pure=False, **more)
            for taker in takers
        ]
        self.client.gather(futures)

    def fitting(self, needed: Mapping[str, float]) -> bool:
        """Whether any of the workers can hold a run that takes this much."""
        return any(worker.holds(needed) for worker in self._workers)

    def demands(self, needs: Resources, *, kvm: bool) -> dict[str, float]:
        """What a run takes, in Dask's words; no more CPUs than the largest worker has."""
        most = max((worker.resources.get("cpus", 1.0) for worker in self._workers), default=1.0)
        cpus = min(float(needs.cpus), most)
        pages = {f"huge-pages-{size}": float(count) for size, count in needs.huge_pages.items() if count}
        return {"memory": float(needs.memory), "cpus": cpus, **({"kvm": cpus} if kvm else {}), **pages}

    def submit(self, order: RunOrder, needed: Mapping[str, float]) -> Future[RunAnswer]:
        """Ask for a run; a :class:`harness.cluster.order.RunAnswer` comes."""
        key = f"freepage-{secrets.token_hex(8)}"
        return self.client.submit(work.make_run, order, key=key, resources=dict(needed), pure=False)

    @contextmanager
    def told_of_begun(self, told: Callable[[str], None]) -> Iterator[None]:
        """While this is entered, ``told`` is called with the name of each run that begins, by a thread."""
        self.client.subscribe_topic(work.BEGAN, lambda event: told(str(event[1])))
        try:
            yield
        finally:
            self.client.unsubscribe_topic(work.BEGAN)
