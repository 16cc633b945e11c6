# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands have left in folders, as batches: of suites, of benches, of single runs.

So that the parts of a suite that several machines have made come together, and what was run before
there was a store, or where it could not be written, is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.bench.document import BenchDocument, BenchPoint, BenchRun
from harness.errors import ExitCode, InputError
from harness.history.record import Batch, KeptRun, facts_of, kept_run, qemu_words
from harness.report.finished import SUITE_RUNS, outcome_of, read_finished
from harness.report.folder import RUN_RESULT
from harness.report.folders import SUITE_REPORT, suite_in
from harness.report.result import Result

_BENCH_DOCUMENT = "bench.json"


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """A batch, and what it has made."""

    batch: Batch
    runs: tuple[KeptRun, ...]


def read_folder(folder: Path) -> FoundBatch:
    """The batch in a folder.  Raises :class:`InputError` for a folder of none, or one that is damaged."""
    for name, read in (
        (SUITE_REPORT, _suite),
        (SUITE_RUNS, _unfinished),
        (_BENCH_DOCUMENT, _bench),
        (RUN_RESULT, _single),
    ):
        if (folder / name).is_file():
            return read(folder / name)
    raise InputError(
        f"{folder} is the folder of no suite, bench or run: it has none of {SUITE_REPORT}, {SUITE_RUNS}, "
        f"{_BENCH_DOCUMENT} and {RUN_RESULT}"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _suite(path: Path) -> FoundBatch:
    report = suite_in(path.parent)
    batch = Batch(
        "suite",
        report.suite,
        report.command,
        report.began,
        seed=report.seed,
        shard=report.shard,
        seconds=report.seconds,
        exit_status=report.exit_status,
        interrupted=report.interrupted,
        host=report.host,
    )
    return FoundBatch(batch, tuple(map(kept_run, report.runs)))


def _unfinished(path: Path) -> FoundBatch:
    """A suite that was killed."""
    runs = read_finished(path)
    if not runs:
        raise InputError(f"no run had ended in {path.parent}")
    batch = Batch("suite", path.parent.name, "", min(run.began for run in runs), interrupted=True)
    return FoundBatch(batch, tuple(map(kept_run, runs)))


def _single(path: Path) -> FoundBatch:
    result = Result.from_json(_text(path), str(path))
    began = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    status = ExitCode.PASS if result.as_expected else ExitCode.FAIL
    if result.verdict == "inconclusive" and not result.as_expected:
        status = ExitCode.INCONCLUSIVE
    rules = [found.rule for found in result.findings]
    run = KeptRun(
        name=result.scenario,
        scenario=result.scenario,
        outcome=outcome_of(status, result),
        exit_status=status,
        reason=result.reason,
        began=began,
        seconds=round(sum(result.phases.values()), 3),
        rule=result.expected_rule if result.expected_rule in rules else next(iter(rules), None),
        seed=result.seed,
        arm=result.arm,
        accelerator=result.accelerator,
        folder=str(path.parent.absolute()),
        replay=result.replay,
        **facts_of(result),
    )
    return FoundBatch(Batch("suite", "", result.replay, began, exit_status=status), (run,))


def _bench(path: Path) -> FoundBatch:
    document = BenchDocument.from_json(_text(path), str(path))
    return bench_batch(document, path.parent)


def bench_batch(document: BenchDocument, folder: Path | None = None) -> FoundBatch:
    """A bench as a batch.  ``folder``: the bench's, in which its runs' folders lie."""
    began = _time(document.started)
    runs = tuple(_bench_runs(document, began, folder))
    batch = Batch("bench", "", document.command, began, seed=document.seed, host=document.host)
    return FoundBatch(batch, runs)


def _bench_runs(document: BenchDocument, began: datetime, folder: Path | None) -> Iterator[KeptRun]:
    words = qemu_words(document.versions)
    for point in document.points:
        for run in point.runs:
            yield _bench_run(document, point, run, words, began, folder)


def _bench_run(
    document: BenchDocument,
    point: BenchPoint,
    run: BenchRun,
    words: str,
    began: datetime,
    folder: Path | None,
) -> KeptRun:
    outcome = run.verdict if run.verdict in ("pass", "fail", "inconclusive") else "error"
    status = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "inconclusive": ExitCode.INCONCLUSIVE}
    kernel = document.versions.get("kernel")
    return KeptRun(
        name=f"{point.scenario} arm={point.arm} memory={point.memory_bytes >> 20}MiB#{run.number}",
        scenario=point.scenario,
        outcome=outcome,
        exit_status=status.get(outcome, ExitCode.ERROR),
        reason=run.reason,
        began=began,
        seconds=0.0,
        dimensions={"arm": point.arm, "memory": str(point.memory_bytes)},
        repeat=run.repeat,
        seed=run.seed,
        arm=point.arm,
        memory=point.memory_bytes,
        accelerator=point.accelerator,
        qemu=words,
        kernel=str(kernel.get("release", "")) if isinstance(kernel, dict) else "",
        folder=str((folder / run.folder).absolute()) if folder is not None and run.folder else None,
        replay=run.replay,
        measures={name: value for name, value in run.values.items() if value is not None},
    )


def _time(words: str) -> datetime:
    """A bench's own time stamp, which is in UTC."""
    try:
        found = datetime.fromisoformat(words.removesuffix("Z").replace(" UTC", ""))
    except ValueError as error:
        raise InputError(f"a bench that started at {words!r}: not a time") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
