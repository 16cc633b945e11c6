# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``freepage``: parse, call, print.  No logic.

What a machine reads goes to stdout, what a person reads while waiting to stderr.
With ``--json`` stdout carries one JSON document and nothing else.

Exit status: 0 pass, 1 fail, 2 bad input, 3 an error that is no verdict,
4 inconclusive, 130 interrupted.

Heavy modules are imported by the command that needs them: ``freepage run`` is
measured from here.

Each module here holds one group of commands, and is imported for having
registered them on :data:`app`.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from harness.cli import bench, explain, faults, machine, run, scenario  # noqa: F401 - they register
from harness.cli.options import app, overrides
from harness.errors import FreepageError

__all__ = ["app", "main", "overrides"]

INTERRUPTED = 130


def main() -> NoReturn:
    """The entry point: every error of ours becomes its message and its exit status."""
    try:
        app()
    except FreepageError as error:
        typer.echo(f"freepage: {error.render()}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("freepage: interrupted", err=True)
        sys.exit(INTERRUPTED)
    raise AssertionError("typer always exits")
