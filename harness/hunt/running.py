# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of a hunt: ``freepage run`` in a process of its own, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.hunt.drawing import Drawn
from harness.hunt.ending import FRAMES, RunEnding, judge_ending
from harness.hunt.folder import HuntFolder, replayable
from harness.hunt.reached import ReachedLines
from harness.report.folder import LINE_COUNTERS
from harness.report.result import Result
from harness.run_process import RunProcess, start_run

#: No run of a small guest takes longer, emulated on a busy machine; one that does is hung.
HUNG_SECONDS: Final = 420.0
#: The exit status of a run that was interrupted: by the Ctrl-C that was meant for the hunt.
INTERRUPTED: Final = 130
#: gdb reads the symbols of a QEMU first.
_GDB_SECONDS: Final = 120.0
_FRAME: Final = re.compile(r"^#\d+\s+(?:0x[0-9a-f]+ in )?([A-Za-z_]\w*)", re.MULTILINE)
#: Functions by which a program ends itself: they say nothing of why.
_OF_ABORT: Final = ("raise", "abort", "__assert_fail", "__pthread_kill_implementation", "gsignal")


class TimeIsUp(BaseException):
    """There is no time for another run.  No Exception: Hypothesis would take one for a failing example."""


@dataclass(frozen=True, slots=True)
class RunDone:
    """A run that has ended."""

    ending: RunEnding
    seconds: float
    folder: Path
    """The run folder; it may not be there."""
    version: str = ""
    """Of the source's QEMU, where the run says it."""
    accelerator: str = ""
    """How the guest's processors were run, where the run says it."""


class Runner:
    """Runs scenarios until a deadline; ``options`` go to each ``freepage run``.

    ``deadline``: by :func:`time.monotonic`.  ``lines``: adds up which lines of QEMU the runs have reached.
    """

    def __init__(
        self,
        folder: HuntFolder,
        options: Sequence[str],
        deadline: float,
        lines: ReachedLines | None = None,
    ) -> None:
        self._folder = folder
        self._options = tuple(options)
        self._deadline = deadline
        self._lines = lines
        self._lock = threading.Lock()
        self._running: set[RunProcess] = set()
        self._over = False

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def run(self, drawn: Drawn, seed: int) -> RunDone:
        """Run a scenario.  Raises :class:`TimeIsUp` if the hunt ends first."""
        if self.left <= 0:
            raise TimeIsUp
        with self._lock:
            if self._over:
                raise TimeIsUp
        out = self._folder.new_run()
        file = out / "drawn.yaml"
        file.write_text(replayable("hunt", drawn, seed, RunEnding("right"), {}), encoding="utf-8")
        began = time.monotonic()
        words = ["run", str(file), "--json", "--out", str(out / "run"), *self._options]
        status, said = self._freepage(words, out / "said")
        return self._done(status, said, time.monotonic() - began, out)

    def _freepage(self, words: Sequence[str], log: Path) -> tuple[int | None, str]:
        """Exit status and stderr; None: it hung, and was killed.  ``log`` is gone in the end."""
        limit = min(HUNG_SECONDS, self.left)
        with self._lock:
            if self._over:
                raise TimeIsUp
            # What it prints is in its run folder as well.
            process = start_run(words, stdout=Path(os.devnull), stderr=log)
            self._running.add(process)
        try:
            status = process.wait(max(0.1, limit))
            if status is None:
                process.kill()
                process.wait()
                if limit < HUNG_SECONDS:
                    raise TimeIsUp
        except BaseException:
            process.kill()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self._over or status == INTERRUPTED:
            raise TimeIsUp
        said = log.read_text("utf-8", errors="replace") if log.exists() else ""
        log.unlink(missing_ok=True)
        return status, said

    def _done(self, status: int | None, said: str, seconds: float, out: Path) -> RunDone:
        run = out / "run"
        if self._lines is not None and run.exists():
            self._lines.take(run / LINE_COUNTERS)
            shutil.rmtree(run / LINE_COUNTERS, ignore_errors=True)
        if status is None:
            text = f"the run took over {HUNG_SECONDS:g} s, and was ended"
            return RunDone(RunEnding("failed", f"hang/{_last_step(run)}", text), seconds, out)
        path = run / "result.json"
        result = None
        if path.exists():
            with contextlib.suppress(InputError):
                result = Result.from_json(path.read_text("utf-8"), str(path))
        ending = judge_ending(status, result, said_by(said), _error_type(run), stack_of(run))
        if result is None:
            return RunDone(ending, seconds, out)
        version = str(result.versions.get("source_qemu", {}).get("version", ""))
        return RunDone(ending, seconds, out, version, result.accelerator or "")

    def drop(self, done: RunDone) -> None:
        """Remove a run folder that nobody needs."""
        shutil.rmtree(done.folder, ignore_errors=True)

    def end_all(self) -> None:
        """End what runs: each run takes its lab with it."""
        with self._lock:
            self._over = True
            for process in self._running:
                process.terminate()


def said_by(text: str) -> str:
    """What a command says of its end: from its last message on."""
    lines = text.strip().splitlines()
    begins = [at for at, line in enumerate(lines) if line.startswith("freepage: ")]
    if not begins:
        return lines[-1] if lines else ""
    return "\n".join(lines[begins[-1] :]).removeprefix("freepage: ")


def _events(run: Path) -> list[dict[str, object]]:
    try:
        lines = (run / "events.jsonl").read_text("utf-8").splitlines()
        return [found for line in lines if isinstance(found := json.loads(line), dict)]
    except (OSError, ValueError):
        return []


def _error_type(run: Path) -> str:
    """The class of the error that ended a run, by its events."""
    return _last(run, "error", "type")


def _last_step(run: Path) -> str:
    return _last(run, "step-start", "step") or "prepare"


def _last(run: Path, kind: str, key: str) -> str:
    """What the last event of a kind says of something; empty: there is none."""
    data = [event.get("data") for event in _events(run) if event.get("kind") == kind]
    last = data[-1] if data else None
    return str(last.get(key, "")) if isinstance(last, dict) else ""


def stack_of(run: Path) -> tuple[str, ...]:
    """The functions in which a QEMU crashed, the innermost first; nothing without a core file or gdb."""
    cores = [run / f"{side}.core" for side in ("source", "destination")]
    core = next((path for path in cores if path.exists()), None)
    gdb = shutil.which("gdb")
    if core is None or gdb is None:
        return ()
    try:
        done = subprocess.run(
            [gdb, "-nx", "-batch", "-ex", "bt 20", "-c", str(core), *_program_of(core)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GDB_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = [name for name in _FRAME.findall(done.stdout) if name not in _OF_ABORT]
    return tuple(names[:FRAMES])


def _program_of(core: Path) -> list[str]:
    """The program that left the core: the first word of the command line that the run folder has."""
    command = core.with_suffix(".command")
    with contextlib.suppress(OSError):
        words = command.read_text("utf-8").split()
        return [word for word in words[:1] if Path(word).exists()]
    return []
