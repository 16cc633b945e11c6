# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts the command ``freepage`` in a process of its own: the one place that knows how.

    output = invoke(["scenario", "list"], timeout=60)
    output.exit_code, output.stdout

A process, and not a call: it enters namespaces, it may be killed, and what one run
leaves in memory must not reach the next.  The same Python and the same packages are
used as here; the current folder is not searched for modules (``-P``).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: By these a command knows that it is to report to GitHub (harness/report/github.py).
_REPORTS: Final = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY")


@dataclass(frozen=True, slots=True)
class Output:
    """What a command that has ended left."""

    exit_code: int
    """Negative: the number of the signal that killed it."""
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"exit status {self.exit_code}\n{self.stdout}\n{self.stderr}"


#: Names the only file of configuration that counts.  What we start is told all on its command line, and
#: must not take options from a file once more.
CONFIG_VARIABLE: Final = "FREEPAGE_CONFIG"
NO_CONFIG: Final = "none"

#: Variables that stand for options, such as FREEPAGE_RUN_MEMORY; not passed on for the same reason.
_OPTION: Final = re.compile(r"FREEPAGE_[A-Z]+_[A-Z_]+")
_KEPT: Final = frozenset({"FREEPAGE_DEBIAN_MIRROR", "FREEPAGE_QEMU_SOURCE"})


def command_line(words: Sequence[str | Path]) -> list[str]:
    """The argument list that runs ``freepage`` with these words."""
    return [sys.executable, "-P", "-m", "harness", *map(str, words)]


def bound_to_us(argv: Sequence[str]) -> list[str]:
    """The same command, which the kernel ends when the thread that has started it is gone, even by SIGKILL.

    setpriv rather than a preexec_fn: whoever starts it has threads, and Python code between fork and exec
    in a threaded process may deadlock.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *argv] if setpriv else list(argv)


def typed(words: Sequence[str | Path]) -> str:
    """The command with these words as a user types it here, quoted for a shell.

    ``freepage`` where PATH leads to this installation; else the program by its path.
    """
    ours = Path(sys.executable).with_name("freepage")
    found = shutil.which("freepage")
    if found is not None and Path(found).resolve() == ours.resolve():
        command = ["freepage"]
    else:
        command = [str(ours)] if os.access(ours, os.X_OK) else [sys.executable, "-m", "harness"]
    return shlex.join([*command, *map(str, words)])


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command that another one starts; ``env`` in place of our own.

    Whoever makes several runs reports to the CI, once; and a command that is told all by its words takes
    no options from files or variables besides.
    """
    kept = os.environ if env is None else env
    options = (name for name in kept if _OPTION.fullmatch(name) and name not in _KEPT)
    without = {*_REPORTS, *options}
    return {name: value for name, value in kept.items() if name not in without} | {CONFIG_VARIABLE: NO_CONFIG}


def start(
    words: Sequence[str | Path], *, feed: bool = False, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the command; stdout and stderr are pipes of text, and so is stdin with ``feed``.

    ``env`` is in the place of ours for :func:`child_environment`.
    """
    return subprocess.Popen(
        command_line(words),
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=child_environment(env),
    )


def invoke(
    words: Sequence[str | Path],
    *,
    timeout: float | None = None,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Output:
    """Run the command to its end, and keep what it says.

    ``stdin`` is what it reads.  After ``timeout`` seconds it is killed, and
    :class:`subprocess.TimeoutExpired` raised.
    """
    with start(words, feed=stdin is not None, env=env) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except BaseException:
            # The lab ends with the command.
            process.kill()
            raise
    return Output(process.returncode, stdout, stderr)
