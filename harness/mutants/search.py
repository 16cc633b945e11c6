# SPDX-License-Identifier: GPL-2.0-or-later
"""One mutant after the other: built, then run against the best scenarios until one catches it.

A scenario that has caught something is run once with QEMU as it is, too: if that does not pass, nothing is
proven by it, and it is left out.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.errors import ExitCode, Interrupted
from harness.mutants.build import DoesNotCompile, MutantBuilder, SameProgram
from harness.mutants.draw import Mutant
from harness.mutants.judged import ENOUGH_ERRORS, JudgedMutant, judge_mutant, run_word
from harness.mutants.order import best_first
from harness.mutants.store import CONTROL, MutantRun, RunStore
from harness.run.one_run import MadeRun, one_run
from harness.run_process import RunProcess, start_run
from harness.suite.expand import SuiteRun
from harness.toolchain.cache import key_of
from harness.toolchain.qemu import TARGET

_ENDING_SECONDS: Final = 30.0
_PROGRAMS: Final = "programs"


class MutantSearch:
    """``runs``: by name, in the order in which they are tried before anything is known.

    ``timeout``: seconds after which a run is ended.  ``again``: what has passed is run once more.
    """

    def __init__(
        self,
        builder: MutantBuilder,
        store: RunStore,
        folder: Path,
        runs: Sequence[SuiteRun],
        *,
        timeout: float,
        again: bool,
        say: Callable[[str], None],
    ) -> None:
        self._builder = builder
        self._store = store
        self._folder = folder
        self._runs = {run.name: run for run in runs}
        self._texts = {run.name: key_of(scenario=run.scenario.to_yaml()) for run in runs}
        self._timeout = timeout
        self._again = again
        self._say = say
        self._lock = threading.Lock()
        self._numbers = 0
        self._controls: dict[str, threading.Lock] = {run.name: threading.Lock() for run in runs}
        self._processes: set[RunProcess] = set()
        self._ended = False

    def search(
        self,
        mutants: Sequence[Mutant],
        texts: Mapping[str, str],
        jobs: int,
        told: Callable[[JudgedMutant], None],
    ) -> list[JudgedMutant]:
        """Judge these mutants, ``jobs`` at a time; Ctrl-C ends what runs, and keeps what is done."""
        found: dict[str, JudgedMutant] = {}
        with ThreadPoolExecutor(jobs, "mutants") as pool:
            pending = {pool.submit(self._one, mutant, texts[mutant.file]) for mutant in mutants}
            try:
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        judged = future.result()
                        found[judged.mutant.id] = judged
                        told(judged)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise
        return [found[mutant.id] for mutant in mutants]

    def kept(self, mutant: Mutant) -> JudgedMutant:
        """What is known of a mutant without a run."""
        known = self._store.of(mutant.id)
        build = next((run for run in known if not run.scenario), None)
        if build is not None:
            word = "same" if build.word == "same" else "does-not-build"
            return JudgedMutant(mutant, "same" if word == "same" else "does-not-build", why=build.why)
        valid = self._valid(known)
        complete = {run.scenario for run in valid} >= set(self._runs)
        return judge_mutant(mutant, valid, complete=complete)

    def _valid(self, known: Sequence[MutantRun]) -> list[MutantRun]:
        """The last run with each scenario as it is now; one whose control is wrong proves nothing."""
        last: dict[str, MutantRun] = {}
        for run in known:
            if self._texts.get(run.scenario) == run.text:
                last[run.scenario] = run
        wrong = {name for name, run in self._control_runs().items() if run.word != "pass"}
        return [run for name, run in last.items() if name not in wrong]

    def _control_runs(self) -> dict[str, MutantRun]:
        runs = self._store.of(CONTROL)
        return {run.scenario: run for run in runs if self._texts.get(run.scenario) == run.text}

    def _one(self, mutant: Mutant, text: str) -> JudgedMutant:
        kept = self.kept(mutant)
        if kept.word in ("caught", "noticed", "does-not-build", "same"):
            return kept
        if kept.word == "survived" and not self._again:
            return kept
        program = self._folder / _PROGRAMS / mutant.id / TARGET
        try:
            self._builder.build(mutant, text, program)
            return self._tried(mutant, program)
        except (DoesNotCompile, SameProgram) as ended:
            word = "same" if isinstance(ended, SameProgram) else "does-not-build"
            self._store.add(
                MutantRun(self._builder.key, mutant.id, mutant.file, "", "", word, why=str(ended))
            )
            return self.kept(mutant)
        finally:
            shutil.rmtree(program.parent, ignore_errors=True)

    def _tried(self, mutant: Mutant, program: Path) -> JudgedMutant:
        done = set() if self._again else {run.scenario for run in self._valid(self._store.of(mutant.id))}
        errors = 0
        while (name := self._next(mutant, done)) is not None:
            done.add(name)
            run = self._make(mutant.id, mutant.file, name, program)
            if run.word == "fail" and not self._proven(name):
                self._say(f"{name} fails with QEMU as it is, and proves nothing: left out")
                continue
            self._store.add(run)
            errors += run.word == "none"
            if run.word == "fail" or errors >= ENOUGH_ERRORS:
                break
        return self.kept(mutant)

    def _next(self, mutant: Mutant, done: set[str]) -> str | None:
        wrong = {name for name, run in self._control_runs().items() if run.word != "pass"}
        left = [name for name in self._runs if name not in done | wrong]
        return best_first(left, mutant.file, self._store.all())[0] if left else None

    def _proven(self, name: str) -> bool:
        """Whether a scenario passes with QEMU as it is; run once."""
        with self._controls[name]:
            known = self._control_runs().get(name)
            if known is None:
                known = self._make(CONTROL, "", name, self._folder / _PROGRAMS / CONTROL / TARGET)
                self._store.add(known)
        return known.word == "pass"

    def _make(self, mutant: str, file: str, name: str, program: Path) -> MutantRun:
        run = self._runs[name]
        with self._lock:
            self._numbers += 1
            while (place := self._folder / f"run-{self._numbers}-{mutant}-{run.scenario.name}").exists():
                self._numbers += 1
        scenario = place.with_name(f"{place.name}.yaml")
        scenario.write_text(run.scenario.to_yaml(), encoding="utf-8")
        tools = replace(run.tools, source_qemu=str(program), destination_qemu=str(program))
        began = time.monotonic()
        made, late = self._command(["run", scenario, "--out", place, *tools.options()], place)
        if self._ended or made.exit_status == Interrupted.exit_code:
            # By somebody: that says nothing of the mutant, and is not to be kept.
            raise Interrupted
        seconds = round(time.monotonic() - began, 1)
        word = "none" if late else run_word(made.exit_status)
        rule = made.rules[0] if made.rules else ""
        why = f"it took over {self._timeout:.0f} s, and was ended" if late else made.reason
        if word != "fail":
            shutil.rmtree(place, ignore_errors=True)
            place.with_name(f"{place.name}.log").unlink(missing_ok=True)
        scenario.unlink(missing_ok=True)
        folder = str(place) if place.exists() else ""
        return MutantRun(
            self._builder.key, mutant, file, name, self._texts[name], word, rule, why, seconds, folder
        )

    def _command(self, words: Sequence[str | Path], place: Path) -> tuple[MadeRun, bool]:
        """Make one run; whether it had to be ended."""
        log = place.with_name(f"{place.name}.log")
        process = start_run(words, stdout=log, stderr=log)
        with self._lock:
            self._processes.add(process)
            if self._ended:
                process.terminate()
        try:
            status = process.wait(self._timeout)
            if status is not None:
                return one_run(place, status, log), False
            process.terminate()
            if process.wait(_ENDING_SECONDS) is None:
                process.kill()
                process.wait()
            return MadeRun(place, ExitCode.ERROR, ""), True
        finally:
            with self._lock:
                self._processes.discard(process)

    def _end_all(self) -> None:
        with self._lock:
            self._ended = True
            for process in self._processes:
                process.terminate()
