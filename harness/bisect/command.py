# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bisect``: from the command line to the answer."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.build import SHORT, KernelCommits, QemuCommits, Runs, clone_of, work_name
from harness.bisect.git import Commit
from harness.bisect.judged import JudgedCommit
from harness.bisect.search import CommitBuilder, FoundChange, Search
from harness.bisect.span import CommitSpan
from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.plan.kinds import kind_of
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.report.folder import RunFolder, demand_new
from harness.run.one_run import MadeRun
from harness.scenario.load import Override, Scenario
from harness.terminal import TerminalProgress
from harness.toolchain.cache import Cache

_DOCUMENT = "bisect.json"
_LOG = "git-bisect.log"


@dataclass(frozen=True, slots=True)
class BisectOptions:
    """What a search is told beside the tree: the scenario, and how often each commit is run."""

    scenario: str
    changes: Sequence[str | Override]
    tools: Tools
    repeat: int


def find_change(span: CommitSpan, options: BisectOptions, *, out: Path | None, as_json: bool) -> int:
    """Search, and print what was found; returns the exit status.

    0: one commit; inconclusive: several, between which nothing could be told.
    """
    scenario, tools = load_with_tools(options.scenario, options.changes, options.tools)
    if not kind_of(scenario).local:
        raise InputError("bisect: what is built of the commits runs in a lab, and not on machines of yours")
    demand_new(out)
    folder = _folder(scenario, out)
    runs = Runs(folder, tuple(_scenarios(scenario, options.repeat, folder)))
    events = EventStream()
    cache = Cache(None, events)
    with cache.lock(work_name(span.tree), f"a search in {span.tree}"):
        clone = clone_of(span, cache)

        def told(judged: JudgedCommit) -> None:
            subject = clone.describe(judged.commit).subject
            say(f"{judged.commit[:SHORT]} is {judged.word}: {judged.why}  ({subject})")

        def say(text: str) -> None:
            events.emit("message", text=f"bisect: {text}")

        builder: CommitBuilder = (
            QemuCommits(span, clone, cache, scenario, tools, runs)
            if span.kind == "qemu"
            else KernelCommits(clone, cache, scenario, tools, runs)
        )
        with TerminalProgress(events):
            between = f"between {span.good[:SHORT]} and {span.bad[:SHORT]}"
            say(f"{span.commits} commits {between}; run folders below {folder}")
            found = Search(builder, clone, options.repeat, told).find(span.good, span.bad)
        with contextlib.suppress(OSError):
            (folder / _LOG).write_text(clone.bisect_log(), encoding="utf-8")
        commits = [clone.describe(name) for name in found.commits]
    document = bisect_document(span, scenario.name, found, commits, folder)
    (folder / _DOCUMENT).write_text(document, encoding="utf-8")
    print(document if as_json else "\n".join(as_lines(found, commits, folder)), flush=True)  # noqa: T201
    return ExitCode.PASS if len(commits) == 1 else ExitCode.INCONCLUSIVE


def _folder(scenario: Scenario, out: Path | None) -> Path:
    stem = RunFolder.stem(scenario.name, scenario.arm)
    folder = (out or Path("runs", f"{stem}-bisect")).absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}", hint="give --out DIR"
        ) from error
    return folder


def _scenarios(scenario: Scenario, repeat: int, folder: Path) -> Iterator[Path]:
    """One for the first run of every commit, one for the second, ...: seeds do not differ between commits."""
    for number in range(1, repeat + 1):
        seed = secrets.randbits(63) if scenario.seed is None else scenario.seed
        file = folder / f"scenario-{number}.yaml"
        file.write_text(scenario.model_copy(update={"seed": seed}).to_yaml(), encoding="utf-8")
        yield file


def as_lines(found: FoundChange, commits: Sequence[Commit], folder: Path) -> list[str]:
    """For people."""
    if len(commits) == 1:
        lines = ["the first bad commit:"]
    else:
        lines = [f"one of these {len(commits)} commits; what lies between them could not be run:"]
    lines += [f"{one.name} {one.subject}\n    {one.author}, {one.date}" for one in commits]
    lines += ["", *found.sureness.lines(), "", f"runs        {folder}"]
    return lines


def bisect_document(
    span: CommitSpan, scenario: str, found: FoundChange, commits: Sequence[Commit], folder: Path
) -> str:
    """As JSON."""
    sure = found.sureness
    document = {
        "version": 1,
        "scenario": scenario,
        "tree": str(span.tree),
        "good": span.good,
        "bad": span.bad,
        "between": span.commits,
        "commits": [
            {"commit": one.name, "subject": one.subject, "author": one.author, "date": one.date}
            for one in commits
        ],
        "sureness": {
            "failed": sure.failed,
            "of": sure.runs,
            "least_rate": sure.least,
            "risk_at_seen_rate": sure.risk(sure.seen),
            "risk_at_least_rate": sure.risk(sure.least),
            "words": sure.lines(),
        },
        "looked_at": [
            {"commit": one.commit, "word": one.word, "why": one.why, "runs": [_run(run) for run in one.runs]}
            for one in found.looked_at
        ],
        "folder": str(folder),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _run(run: MadeRun) -> dict[str, object]:
    return {
        "outcome": run.word,
        "reason": run.reason,
        "rules": list(run.rules),
        "seed": run.seed,
        "folder": str(run.folder),
    }
