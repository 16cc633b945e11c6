# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches and runs as the store keeps them, and how they are written.

Everything that is kept comes through here, from a suite as it runs or from a folder read later.  A run has a
name of its own (``uid``) made of what it is: read twice, it is kept once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, insert, select, update

from harness.bench.measures import MEASURES
from harness.errors import FreepageError, MachineryError
from harness.history.schema import FINDINGS, KEPT_BATCHES, KEPT_RUNS, MEASURED
from harness.history.store import Store
from harness.report.finished import FinishedRun
from harness.report.result import Result
from harness.terminal import print_error

BatchKind: TypeAlias = Literal["suite", "faults", "bench", "hunt"]
#: A column of 63 bits is what SQLite and PostgreSQL have.
_LARGEST_SEED: Final = 2**63 - 1
_COMPRESSION: Final = 6
#: So many values go into one statement; older SQLite takes 999.
_MOST_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class Batch:
    """What one command has made; ``seconds`` and ``exit_status`` are None while it runs."""

    kind: BatchKind
    name: str
    command: str
    began: datetime
    seed: int | None = None
    shard: str | None = None
    seconds: float | None = None
    exit_status: int | None = None
    interrupted: bool = False
    host: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """The same wherever the batch is read from."""
        return _uid("batch", self.kind, self.name, self.shard, self.began.isoformat())


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run as it is kept.

    ``qemu``: versions for people, of both sides where they differ; ``build``: digests of both, to tell two
    builds of a version apart.  ``memory``: the guest's, in bytes; 0: not known.
    ``measures``: by the names of docs/bench.md.
    """

    name: str
    scenario: str
    outcome: str
    exit_status: int
    reason: str
    began: datetime
    seconds: float
    dimensions: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1
    rule: str | None = None
    seed: int | None = None
    arm: str = ""
    memory: int = 0
    accelerator: str = ""
    qemu: str = ""
    build: str = ""
    kernel: str = ""
    folder: str | None = None
    replay: str = ""
    result: str | None = None
    findings: Sequence[tuple[str, str, str, int]] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """The same wherever the run is read from."""
        return _uid("run", self.name, self.repeat, self.seed, self.began.isoformat())


def _uid(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def kept_run(run: FinishedRun) -> KeptRun:
    """A suite's run as it is kept."""
    result = run.result
    return KeptRun(
        name=run.name,
        scenario=run.scenario,
        outcome=run.outcome,
        exit_status=run.exit_status,
        reason=run.reason,
        began=run.began,
        seconds=run.seconds,
        dimensions=run.dimensions,
        repeat=run.repeat,
        rule=run.rule,
        seed=run.seed,
        arm=result.arm if result is not None else run.dimensions.get("arm", ""),
        accelerator=run.accelerator,
        folder=run.folder,
        replay=run.replay,
        **(facts_of(result) if result is not None else {}),
    )


def facts_of(result: Result) -> dict[str, Any]:
    """What a result adds to a run: binaries, findings, measures, and the whole of it."""
    versions = result.versions
    return {
        "qemu": qemu_words(versions),
        "build": _build_words(versions),
        "kernel": _word(versions, "kernel", "release"),
        "memory": result.memory_bytes,
        "result": result.model_dump_json(),
        "findings": [(one.rule, one.kind, one.text, one.count) for one in result.findings],
        "measures": measures_of(result),
    }


def measures_of(result: Result) -> dict[str, float]:
    """What can be measured of a run; what it does not have is left out."""
    if result.bytes is None or result.time is None:
        return {}
    read = ((one.name, one.read(result)) for one in MEASURES)
    return {name: float(value) for name, value in read if value is not None}


def qemu_words(versions: Mapping[str, Any]) -> str:
    """``10.0.13 patched``; of two that differ ``7.2.22 debian:bookworm -> 10.0.13 patched``."""
    return " -> ".join(dict.fromkeys(_one_qemu(versions, side) for side in _SIDES)).strip()


_SIDES: Final = ("source_qemu", "destination_qemu")


def _one_qemu(versions: Mapping[str, Any], side: str) -> str:
    return f"{_word(versions, side, 'version')} {_word(versions, side, 'flavour')}".strip()


def _build_words(versions: Mapping[str, Any]) -> str:
    return " ".join(dict.fromkeys(_word(versions, side, "sha256")[:16] for side in _SIDES)).strip()


def _word(versions: Mapping[str, Any], part: str, name: str) -> str:
    found = versions.get(part)
    value = found.get(name) if isinstance(found, Mapping) else None
    return "" if value is None else str(value)


# --- writing


def begin_batch(connection: Connection, batch: Batch) -> int:
    """Keep a batch, or find it where it is kept already; its number."""
    found = connection.execute(select(KEPT_BATCHES.c.id).where(KEPT_BATCHES.c.uid == batch.uid)).scalar()
    if found is not None:
        return int(found)
    values = _batch_values(batch)
    key = connection.execute(insert(KEPT_BATCHES).values(uid=batch.uid, **values)).inserted_primary_key
    if key is None:
        raise MachineryError("the store gave a batch no number")
    return int(key[0])


def end_batch(connection: Connection, number: int, batch: Batch) -> None:
    """Say how a batch ended."""
    values = _batch_values(batch)
    connection.execute(
        update(KEPT_BATCHES).where(KEPT_BATCHES.c.id == number).values(uid=batch.uid, **values)
    )


def _batch_values(batch: Batch) -> dict[str, Any]:
    return {
        "kind": batch.kind,
        "name": batch.name,
        "command": batch.command,
        "seed": _seed(batch.seed),
        "shard": batch.shard,
        "began": batch.began,
        "seconds": batch.seconds,
        "exit_status": batch.exit_status,
        "interrupted": batch.interrupted,
        "host": dict(batch.host),
    }


def add_run(connection: Connection, number: int, run: KeptRun) -> bool:
    """Keep a run of a batch; False: it is kept already."""
    if connection.execute(select(KEPT_RUNS.c.id).where(KEPT_RUNS.c.uid == run.uid)).scalar() is not None:
        return False
    key = connection.execute(
        insert(KEPT_RUNS).values(
            batch_id=number,
            uid=run.uid,
            name=run.name,
            scenario=run.scenario,
            dimensions=dict(run.dimensions),
            repeat=run.repeat,
            outcome=run.outcome,
            exit_status=run.exit_status,
            reason=_storable(run.reason),
            rule=run.rule,
            seed=_seed(run.seed),
            arm=run.arm,
            memory=run.memory,
            accelerator=run.accelerator,
            qemu=run.qemu,
            build=run.build,
            kernel=run.kernel,
            began=run.began,
            seconds=run.seconds,
            folder=run.folder,
            replay=_storable(run.replay),
            result=zlib.compress(run.result.encode(), _COMPRESSION) if run.result is not None else None,
        )
    ).inserted_primary_key
    if key is None:
        raise MachineryError("the store gave a run no number")
    if run.findings:
        connection.execute(
            insert(FINDINGS),
            [
                {
                    "run_id": key[0],
                    "number": at,
                    "rule": rule,
                    "kind": kind,
                    "text": _storable(words),
                    "count": count,
                }
                for at, (rule, kind, words, count) in enumerate(run.findings)
            ],
        )
    if run.measures:
        connection.execute(
            insert(MEASURED),
            [{"run_id": key[0], "name": name, "value": value} for name, value in run.measures.items()],
        )
    return True


def _seed(seed: int | None) -> int | None:
    """A seed is of 64 bits, a column of 63 and a sign: the two's complement."""
    return seed if seed is None or seed <= _LARGEST_SEED else seed - 2**64


def _storable(text: str) -> str:
    """A guest's words may have a zero in them, which PostgreSQL takes in no text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def record_batch(store: Store, batch: Batch, runs: Iterable[KeptRun]) -> tuple[int, int]:
    """Keep a batch and its runs, in one transaction; how many were new, and how many were there."""
    wanted = list(runs)
    with store.writing() as connection:
        uids = {run.uid for run in wanted}
        known = _known(connection, uids)
        if uids and uids <= known:
            return 0, len(wanted)
        number = begin_batch(connection, batch)
        new = sum(add_run(connection, number, run) for run in wanted)
        end_batch(connection, number, batch)
    return new, len(wanted) - new


def keep_batch(store: Store, batch: Batch, runs: Iterable[KeptRun]) -> None:
    """As :func:`record_batch`, but a store that fails is only said: what was measured stands without it."""
    try:
        record_batch(store, batch, runs)
    except FreepageError as error:
        print_error(f"freepage: not kept in the history: {error.render()}")


def _known(connection: Connection, uids: Iterable[str]) -> set[str]:
    """Those of these runs that are kept."""
    wanted, found = list(uids), set[str]()
    for at in range(0, len(wanted), _MOST_WORDS):
        some = wanted[at : at + _MOST_WORDS]
        found |= set(connection.execute(select(KEPT_RUNS.c.uid).where(KEPT_RUNS.c.uid.in_(some))).scalars())
    return found
