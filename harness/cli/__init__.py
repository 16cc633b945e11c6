# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``freepage``: parse, call, print.  No logic.

What a machine reads goes to stdout, what a person reads while waiting to stderr.
With ``--json`` stdout carries one JSON document and nothing else.

Exit status: 0 pass, 1 fail, 2 bad input, 3 an error that is no verdict,
4 inconclusive, 130 interrupted.  1 is a verdict and nothing else: whatever
else goes wrong, a fault of the testbed itself included, is 3.

Heavy modules are imported by the command that needs them: ``freepage run`` is
measured from here.

Each module here holds one group of commands, and is imported for having
registered them on :data:`app`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import Any, NoReturn

import typer
from typer.main import get_command

from harness import arch
from harness.cli import (  # noqa: F401 - they register
    again,
    bench,
    bisect,
    cache,
    cluster,
    config,
    explain,
    faults,
    history,
    hunt,
    machine,
    manual,
    run,
    runs,
    scenario,
    series,
    stream,
    suite,
)
from harness.cli.options import app, overrides
from harness.errors import ExitCode, FreepageError
from harness.last_resort import in_words

__all__ = ["app", "main", "overrides"]

INTERRUPTED = 130


def _start_anew() -> None:
    """With ``--arch``: nearly all that is imported depends on which architecture the guests have."""
    words = sys.argv[1:]
    for number, word in enumerate(words):
        name = (
            words[number + 1]
            if word == "--arch" and number + 1 < len(words)
            else word.partition("--arch=")[2]
        )
        if name in arch.known() and name != arch.GUEST.name:
            os.environ[arch.ARCH_VARIABLE] = name
            os.execv(sys.executable, [sys.executable, "-m", "harness", *words])  # noqa: S606 - ourselves


def main() -> NoReturn:
    """The entry point: every error becomes its message and its exit status."""
    _start_anew()
    _open_streams()
    status = _status()
    try:
        sys.stdout.flush()
    except OSError as error:
        # Nobody has what the status is about: the reader is gone, or the device is full.
        if status != ExitCode.ERROR:  # else it was said when it was written
            _say(f"freepage: stdout: {error.strerror}")
        status = ExitCode.ERROR
        _let_go_of_stdout()
    sys.exit(status)


def _open_streams() -> None:
    """A stream that the caller has closed: stdin ends at once, and writing to stdout is an error.

    Python would have None in its place, and the next file that is opened would take its number.
    """
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            # Writing to what was opened for reading fails: a result that goes nowhere has to be said.
            nothing = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, ("stdin", "stdout", "stderr")[number], stream)


@functools.cache
def _root() -> Any:
    """The command line, as Typer builds it."""
    root = get_command(app)
    for option in root.params:
        # Those for completion, which Typer adds last.
        option.show_envvar = option.allow_from_autoenv = False  # type: ignore[attr-defined]
    return root


def carry_out_words() -> None:
    """Parse the command line, and the files and variables behind it, and do what they say; then end."""
    root = _root()
    settings = config.load_config(root)
    config.apply_environment(settings)
    root(
        prog_name="freepage",
        default_map=config.as_defaults(root, settings),
        auto_envvar_prefix="FREEPAGE",
    )


def _status() -> int:
    try:
        carry_out_words()
    except FreepageError as error:
        _say(f"freepage: {error.render()}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("freepage: interrupted")
        return INTERRUPTED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            # Typer's help and its errors are Rich's, which ends with 1 when the reader is gone.
            return ExitCode.ERROR
        if end.code is None or isinstance(end.code, int):
            return end.code or ExitCode.PASS
        _say(str(end.code))
        return ExitCode.ERROR
    except Exception as error:  # Python's own status for it would be 1.
        problem = in_words(error)
        _say(f"freepage: {problem.render()}")
        return problem.exit_code
    raise AssertionError("typer always exits")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def _let_go_of_stdout() -> None:
    """What is still to be written is lost; Python would try again at its end, and end with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
