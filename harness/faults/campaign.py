# SPDX-License-Identifier: GPL-2.0-or-later
"""The campaign: each fault once against the scenario that must catch it, each scenario once without.

    report = Campaign(folder, toolchain, say).run(chosen, jobs=2)
    report.caught, report.total

Every run is a ``freepage run`` of its own, in a process of its own.  What came
of it is appended to ``outcomes.jsonl`` at once, under a key of all that it
depends on: a campaign that was interrupted goes on where it was, and one after
a change begins anew.  The folder of a run that went as it should is removed;
all others are kept.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.faults.catalogue import Fault
from harness.faults.outcome import RunEnd, judge_control, judge_fault
from harness.run_process import RunProcess, start_run

OUTCOMES: Final = "outcomes.jsonl"
#: No run takes longer, on a slow machine under emulation; one that does is hung.
LONGEST_SECONDS: Final = 900
_CONTROL: Final = "control:"


@dataclass(frozen=True, slots=True)
class CampaignRun:
    """One run of the campaign: with a fault, or the control of a scenario (a run without a fault)."""

    scenario: str
    file: str
    fault: Fault | None = None
    instead_of: str = ""
    """The fault whose place a run without any takes, where there is one for each."""

    @property
    def name(self) -> str:
        """The job's name in the campaign's state and in names of folders."""
        if self.fault is not None:
            return self.fault.id
        return f"{_CONTROL}{self.scenario}{'/' if self.instead_of else ''}{self.instead_of}"


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """What came of one job."""

    job: str
    scenario: str
    word: str
    rule: str
    why: str
    accelerator: str
    run: str
    """The run's folder; empty if it was removed."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CampaignReport:
    """What came of a campaign."""

    faults: tuple[CampaignRow, ...]
    controls: tuple[CampaignRow, ...]
    not_run: tuple[str, ...]
    """Faults that were left out: they show only under the other accelerator."""

    @property
    def caught(self) -> int:
        """How many faults were caught."""
        return sum(row.word == "caught" for row in self.faults)

    @property
    def total(self) -> int:
        """How many faults were run."""
        return len(self.faults)

    def document(self) -> Mapping[str, object]:
        """The report as plain values, for ``--json``."""
        return {
            "caught": self.caught,
            "total": self.total,
            "faults": [_fault_entry(row) for row in self.faults],
            "controls": [
                {"scenario": row.scenario, "outcome": _control_word(row), "why": row.why, "run": row.run}
                for row in self.controls
            ],
            "not_run": list(self.not_run),
        }


def _fault_entry(row: CampaignRow) -> Mapping[str, str]:
    return {
        "id": row.job,
        "outcome": row.word,
        "rule": row.rule,
        "why": row.why,
        "scenario": row.scenario,
        "accelerator": row.accelerator,
        "run": row.run,
    }


def _control_word(row: CampaignRow) -> str:
    return "ok" if row.word == "caught" else row.word


def jobs_for(faults: Sequence[Fault]) -> list[CampaignRun]:
    """Controls first: a scenario that fails without a fault proves nothing about one."""
    files = {fault.scenario: fault.scenario_file for fault in faults}
    controls = [CampaignRun(scenario, file) for scenario, file in files.items()]
    return [*controls, *(CampaignRun(fault.scenario, fault.scenario_file, fault) for fault in faults)]


def clean_jobs_for(faults: Sequence[Fault]) -> list[CampaignRun]:
    """As many runs as there are faults, and none of them with one: all have to come out right."""
    return [CampaignRun(fault.scenario, fault.scenario_file, None, fault.id) for fault in faults]


class Campaign:
    """``key`` says of what the outcomes in ``folder`` are: builds, scenarios, the harness itself.

    ``options`` go to each ``freepage run``.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        accelerator: str,
        say: Callable[[CampaignRow], None],
        options: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._key = key
        self._accelerator = accelerator
        self._say = say
        self._options = tuple(options)
        self._lock = threading.Lock()
        self._running: set[RunProcess] = set()

    def run(self, wanted: Sequence[CampaignRun], *, jobs: int, not_run: Iterable[str] = ()) -> CampaignReport:
        """Run what has not been run yet; Ctrl-C ends what runs, and keeps what is done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = {row.job: row for row in self._read()}
        todo = [job for job in wanted if job.name not in rows]
        with ThreadPoolExecutor(jobs, "campaign") as pool:
            pending = {pool.submit(self._one, job) for job in todo}
            try:
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        row = future.result()
                        rows[row.job] = row
                        self._say(row)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise
        found = [rows[job.name] for job in wanted]
        clean = tuple(row for row in found if row.job.startswith(_CONTROL))
        controls = {row.scenario: row for row in clean}
        of_faults = [row for row in found if not row.job.startswith(_CONTROL)]
        return CampaignReport(
            tuple(_proven(row, controls[row.scenario]) for row in of_faults), clean, tuple(not_run)
        )

    def _one(self, job: CampaignRun) -> CampaignRow:
        folder = self._new_folder(job)
        ended, seconds = self._freepage(job, folder)
        judged = judge_fault(job.fault, ended) if job.fault else judge_control(ended)
        if judged.word == "caught":
            shutil.rmtree(folder, ignore_errors=True)
        row = CampaignRow(
            job.name,
            job.scenario,
            word=judged.word,
            rule=judged.rule,
            why=judged.why,
            accelerator=ended.accelerator,
            run=str(folder) if folder.exists() else "",
            seconds=seconds,
        )
        self._append(row)
        return row

    def _new_folder(self, job: CampaignRun) -> Path:
        """A run folder is never used twice; one that an interrupted campaign left stays where it is."""
        number, stem = 1, job.name.replace(":", "-").replace("/", "-")
        while (folder := self._folder / f"{stem}-{number}").exists():
            number += 1
        return folder

    def _freepage(self, job: CampaignRun, folder: Path) -> tuple[RunEnd, float]:
        accelerator = self._accelerator
        if job.fault is not None and job.fault.accelerator != "any":
            accelerator = job.fault.accelerator
        words = ["run", job.file, "--json", "--accel", accelerator, "--out", str(folder)]
        words += self._options
        if job.fault is not None:
            words += ["--fault", job.fault.id]
        with tempfile.TemporaryDirectory(prefix="freepage-") as aside:
            stdout, stderr = Path(aside, "stdout"), Path(aside, "stderr")
            process = start_run(words, stdout=stdout, stderr=stderr)
            with self._lock:
                self._running.add(process)
            late = ""
            try:
                status = process.wait(LONGEST_SECONDS)
                if status is None:
                    process.kill()
                    status = process.wait()
                    late = f"\nfreepage: the run took over {LONGEST_SECONDS} s, and was ended"
            finally:
                with self._lock:
                    self._running.discard(process)
            assert status is not None
            said = [
                path.read_text("utf-8", errors="replace") if path.exists() else ""
                for path in (stdout, stderr)
            ]
        return ended_of(status, said[0], said[1] + late)

    def _end_all(self) -> None:
        with self._lock:
            for process in self._running:
                process.terminate()

    def _append(self, row: CampaignRow) -> None:
        line = json.dumps({"key": self._key, **dataclasses.asdict(row)})
        with self._lock, (self._folder / OUTCOMES).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _read(self) -> Iterable[CampaignRow]:
        """Outcomes of an earlier campaign over the same things; errors are tried again."""
        path = self._folder / OUTCOMES
        if not path.exists():
            return
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                data = json.loads(line)
                key = data.pop("key")
                row = CampaignRow(**data)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise MachineryError(
                    f"{path}:{number}: not an outcome of a campaign", hint="remove the file to begin anew"
                ) from error
            if key == self._key and row.word != "error":
                yield row


def _proven(row: CampaignRow, control: CampaignRow) -> CampaignRow:
    """The row of a fault, as an error where its control failed: then nothing is proven."""
    if control.word == "caught" or row.word != "caught":
        return row
    return dataclasses.replace(row, word="error", rule="", why=f"its control went wrong: {control.why}")


def ended_of(status: int, stdout: str, stderr: str) -> tuple[RunEnd, float]:
    """How a run ended, from what it printed; and its seconds."""
    if not stdout.strip():
        return RunEnd(status, error=stderr), 0.0
    from harness.report.result import Result

    result = Result.from_json(stdout)
    rules = tuple(dict.fromkeys(finding.rule for finding in result.findings))
    ended = RunEnd(status, result.verdict, rules, result.expected, result.accelerator)
    return ended, round(sum(result.phases.get(step, 0.0) for step in _STEPS), 1)


_STEPS: Final = ("prepare", "lab", "boot", "load", "migrate", "judge", "check")


def summarise_campaign(report: CampaignReport) -> list[str]:
    """The matrix of faults and scenarios, and what became of each, as lines."""
    scenarios = list(dict.fromkeys(row.scenario for row in (*report.controls, *report.faults)))
    letters = {name: chr(ord("A") + number % 26) for number, name in enumerate(scenarios)}
    marks = {"caught": "X", "missed": "-", "error": "E"}
    width = max((len(row.job) for row in report.faults), default=0)
    lines = [f"{letters[name]}  {name}" for name in scenarios]
    lines += ["", f"{'':{width}}  {''.join(letters[name] for name in scenarios)}"]
    control = {row.scenario: row for row in report.controls}
    clean = "".join({"caught": "o"}.get(control[name].word, "E") for name in scenarios if name in control)
    lines.append(f"{'(no fault)':{width}}  {clean}")
    for row in report.faults:
        cells = "".join(marks[row.word] if name == row.scenario else "." for name in scenarios)
        text = f"caught by {row.rule}" if row.word == "caught" else f"{row.word}: {row.why}"
        lines.append(f"{row.job:{width}}  {cells}  {text}")
    bad = [
        f"control {row.scenario}: {row.word}: {row.why}" for row in report.controls if row.word != "caught"
    ]
    lines += ["", *bad]
    if report.not_run:
        lines.append(f"not run here: {', '.join(report.not_run)}")
    right = sum(row.word == "caught" for row in report.controls)
    lines.append(f"without a fault as expected: {right} of {len(report.controls)}")
    if report.faults:
        lines.append(f"caught {report.caught} of {report.total}")
    return lines
