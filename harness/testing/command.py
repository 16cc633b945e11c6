# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixture ``freepage``: the command, started by a test in a process of its own.

A whole run, to its verdict; a run to interfere with; and any other command::

    run = freepage.run("freed", memory="512MiB")

    running = freepage.start("churn")
    running.wait_for_step("migrate")
    running.qemu("source").kill()
    assert running.end().exit_code == 3

    freepage.command("faults", "list").stdout
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

from harness import invoke
from harness.testing.options import RunOptions, merged, option_words
from harness.testing.outcome import Ending, Run

if TYPE_CHECKING:
    import psutil

#: Seconds.  No single run takes longer, on a slow machine under emulation.
_LONGEST: Final = 300.0


class Running:
    """A command that runs.  Its steps are read off what it says as they begin."""

    def __init__(
        self,
        words: list[str],
        folder: Path,
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = _LONGEST,
    ) -> None:
        self.folder = folder
        self.words = tuple(words)
        self.process = invoke.start(words, feed=stdin is not None, env=env)
        self.ending: Ending | None = None
        self._heard: list[str] = []
        self._input = stdin
        self._timeout = timeout

    def wait_for_step(self, name: str) -> None:
        """Return when the step (``boot``, ``load``, ``migrate``, ...) begins.

        Raises AssertionError if the command ends before.
        """
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._heard.append(line)
            if re.match(rf"\s*\.\.\.\s+{re.escape(name)}\b", line):
                return
        raise AssertionError(f"the command ended before step {name!r}:\n{''.join(self._heard)}")

    def processes(self) -> list[psutil.Process]:
        """Every process of the command but the first one, from the lab's own to both QEMUs."""
        import psutil

        return psutil.Process(self.process.pid).children(recursive=True)

    def qemu(self, side: str) -> psutil.Process:
        """The QEMU on one side (``source``, ``destination``).  Raises AssertionError if there is none."""
        import psutil

        for process in self.processes():
            with suppress(psutil.Error):  # it has just ended
                if process.name().startswith("qemu-system") and any(
                    f"/{side}/" in word and "monitor" in word for word in process.cmdline()
                ):
                    return process
        raise AssertionError(f"no QEMU on the {side}")

    def end(self, timeout: float | None = None) -> Ending:
        """Wait for the end, for so many seconds; then how it ended.

        Raises :class:`subprocess.TimeoutExpired`; the command is killed when the test ends.
        """
        stdout, stderr = self.process.communicate(self._input, timeout=timeout or self._timeout)
        said = "".join(self._heard) + stderr
        self.ending = Ending(self.process.returncode, stdout, said, self.folder)
        return self.ending

    def close(self) -> None:
        """Kill it if it runs; the kernel ends all that belongs to it."""
        with self.process:
            self.process.kill()


class Freepage:
    """Starts the command for one test.  ``folder`` is the test's own; each run gets a folder in it."""

    def __init__(self, folder: Path, defaults: RunOptions | None = None) -> None:
        self.folder = folder
        self.defaults = defaults or RunOptions()
        self.started: list[Running] = []

    def with_defaults(self, **options: Unpack[RunOptions]) -> Freepage:
        """The same for this test, with options that hold unless a run is told otherwise."""
        return self._like(merged(self.defaults, options, ()))

    def without_defaults(self) -> Freepage:
        """The same for this test, where the scenario decides about all that a run is not told."""
        return self._like(RunOptions())

    def _like(self, defaults: RunOptions) -> Freepage:
        other = Freepage(self.folder, defaults)
        other.started = self.started
        return other

    def run(
        self, scenario: str | Path, *words: str, timeout: float = _LONGEST, **options: Unpack[RunOptions]
    ) -> Run:
        """Run a scenario (its name, or a file) to its verdict, whatever that is.

        ``words`` are further options as on the command line, ``timeout`` is in seconds.
        Raises :class:`~harness.testing.NoVerdict` if a guest or host was lost, and
        :class:`~harness.testing.WrongInput` if the command says that the input is wrong.
        """
        __tracebackhide__ = True
        return self.start(scenario, *words, timeout=timeout, **options).end().run()

    def start(
        self,
        scenario: str | Path,
        *words: str,
        command: str = "run",
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = _LONGEST,
        **options: Unpack[RunOptions],
    ) -> Running:
        """Start a run and return at once.  The test's end kills what still runs.

        ``command="shell"`` gives a shell in the guest, which reads ``stdin``.
        """
        chosen = merged(self.defaults, options, words)
        folder = self._new_folder(str(scenario))
        out = [] if "--out" in words else ["--out", str(folder)]
        json = ["--json"] if command == "run" and "--json" not in words else []
        # Words come last: a later one wins.
        everything = [command, str(scenario), *json, *out, *option_words(chosen), *words]
        running = Running(everything, folder, stdin=stdin, env=env, timeout=timeout)
        self.started.append(running)
        return running

    def command(
        self,
        *words: str | Path,
        timeout: float = _LONGEST,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> invoke.Output:
        """Any other command, to its end; nothing is added to its words."""
        return invoke.invoke(words, timeout=timeout, stdin=stdin, env=env)

    def _new_folder(self, scenario: str) -> Path:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(scenario).stem)
        return self.folder / f"run-{len(self.started) + 1}-{stem}"

    def close(self) -> None:
        """End what the test has left running."""
        for running in self.started:
            running.close()

    def account(self) -> str:
        """The test's folder and what became of each run in it, for the message of a failure."""
        lines = [f"folder of this test: {self.folder}"]
        for running in self.started:
            lines.append(f"  {running.folder.name}: {_brief(running)}")
            lines.append(f"    freepage {shlex.join(running.words)}")
        return "\n".join(lines)


def _brief(running: Running) -> str:
    ending = running.ending
    if ending is None:
        return "was not waited for"
    if ending.exit_code in (0, 1, 4) and ending.stdout:
        with suppress(Exception):
            return f"{ending.result.verdict}: {ending.result.reason}"
    return f"exit status {ending.exit_code}"
