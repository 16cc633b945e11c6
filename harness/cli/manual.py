# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual page, made from the commands as they are."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

import typer

from harness.cli.options import app

_EXIT: Final = (
    ("0", "pass; or the failure that a scenario is written to show"),
    ("1", "fail: memory, a device or the end of the migration is wrong, or an expectation is not met"),
    ("2", "the input is wrong; nothing was started"),
    ("3", "the machinery failed; this says nothing about memory"),
    ("4", "inconclusive: memory is right, but what was to be tested did not happen"),
    ("130", "interrupted"),
)

_ENVIRONMENT: Final = (
    (
        "FREEPAGE_CACHE",
        "the folder for what is built; several with colons between, of which the first is written to",
    ),
    ("FREEPAGE_CONFIG", "the only file of configuration to be read; none: no file"),
    ("FREEPAGE_DEBIAN_MIRROR", "where Debian's packages come from"),
    ("FREEPAGE_QEMU_SOURCE", "as --qemu-source"),
    ("FREEPAGE_VERBOSITY", "quiet, normal or verbose"),
    (
        "FREEPAGE_COMMAND_OPTION",
        "any option, such as FREEPAGE_RUN_MEMORY=512MiB for 'freepage run --memory 512MiB'",
    ),
)

_FILES: Final = (
    ("freepage.toml", "in the current folder or above it: options of a project, a table for each command"),
    ("~/.config/freepage-testbed/freepage.toml", "the same for a user"),
    ("runs/", "run folders; each has result.json, or INCOMPLETE"),
)


@app.command("man")
def print_manual() -> None:
    """Print the manual page, for man -l - or a file freepage.1."""
    from typer.main import get_command

    typer.echo("\n".join(manual_lines(get_command(app))))


def manual_lines(root: Any) -> Iterator[str]:
    """The page in roff, for the man macros."""
    yield f'.TH FREEPAGE 1 "" "freepage-testbed {version("freepage-testbed")}" "User Commands"'
    yield from (".SH NAME", r"freepage \- live migration that leaves free pages behind, judged page by page")
    yield from (".SH SYNOPSIS", r".B freepage", r".RI COMMAND\  [ OPTION ]...")
    yield from (".SH DESCRIPTION", _roff(root.help or ""))
    yield ".SH COMMANDS"
    yield from _command_lines(root, "freepage")
    for title, rows in (("EXIT STATUS", _EXIT), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for name, text in rows:
            yield from (".TP", rf".B {_roff(name)}", _roff(text))
    yield from (".SH EXAMPLES", ".nf")
    yield from (_roff("freepage run freed"), _roff("freepage run churn --arm off --memory 512MiB --json"))
    yield from (_roff("freepage explain runs/... --wrong"), ".fi")


def _command_lines(command: Any, name: str) -> Iterator[str]:
    members = getattr(command, "commands", None)
    if members is not None:
        for word, member in sorted(members.items()):
            if not member.hidden:
                yield from _command_lines(member, f"{name} {word}")
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    words = " ".join(_value(one) for one in arguments)
    yield f".SS {_roff(f'{name} {words}'.rstrip())}"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield from (_roff(" ".join(paragraph.split())), ".PP")
    for one in options:
        value = "" if one.is_flag else f" {_value(one)}"
        spelled = ", ".join([*one.opts, *one.secondary_opts])
        yield from (".TP", rf".B {_roff(spelled + value)}", _roff(" ".join((one.help or "").split())))


def _value(parameter: Any) -> str:
    """What stands for its value."""
    return str(parameter.metavar or parameter.name.upper())


def _roff(text: str) -> str:
    """Plain text, so that no character of it is taken for a request."""
    text = textwrap.dedent(text).strip().replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in text.splitlines())
