# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage.toml``: options that are the same every time, of a user's or of a project's.

    [run]
    memory = "512MiB"
    set = ["migration.multifd_channels=4"]

    [bench.run]
    repeat = 3

    [environment]
    cache = "/srv/freepage"

A table is a command, a key one of its long options.  What is closer wins: the command line, then a
variable such as ``FREEPAGE_RUN_MEMORY``, then the project's file, then the user's.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer
from platformdirs import user_config_path

from harness.cli.options import Json, app, print_json
from harness.errors import InputError
from harness.invoke import CONFIG_VARIABLE, NO_CONFIG
from harness.reading import read_text

CONFIG_FILE: Final = "freepage.toml"

#: Bytes: options are a page of text.
_LARGEST: Final = 1 << 20

#: Keys of the table ``environment``, and the variables that they stand for.
_ENVIRONMENT: Final = {
    "cache": "FREEPAGE_CACHE",
    "mirror": "FREEPAGE_DEBIAN_MIRROR",
    "qemu-source": "FREEPAGE_QEMU_SOURCE",
    "verbosity": "FREEPAGE_VERBOSITY",
}


@dataclass(frozen=True, slots=True)
class Config:
    """What the files say, the closer one over the other."""

    files: tuple[Path, ...]
    #: By command ("bench run"), by option ("repeat"): the value, and the file that has it.
    options: Mapping[tuple[str, ...], Mapping[str, tuple[Any, Path]]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def config_files() -> tuple[Path, ...]:
    """The files that count here, the most general first.

    ``FREEPAGE_CONFIG`` names the only one; ``none``: none at all.  A project's file that belongs to
    another user is not one: it may stand in a folder that everybody can write to.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named is not None:
        return () if named in ("", NO_CONFIG) else (Path(named),)
    found = [user_config_path("freepage-testbed") / CONFIG_FILE]
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            owner = (folder / CONFIG_FILE).stat().st_uid
        except OSError:
            continue
        if owner in (0, os.getuid()):
            found.append(folder / CONFIG_FILE)
        else:
            typer.echo(f"freepage: {folder / CONFIG_FILE} belongs to another user: not read", err=True)
        break
    return tuple(dict.fromkeys(file for file in found if file.exists()))


def load_config(root: Any) -> Config:
    """Read and check the files; ``root`` is the command line, as Typer has built it.

    Raises :class:`InputError` that names the file and the key.
    """
    files = config_files()
    options: dict[tuple[str, ...], dict[str, tuple[Any, Path]]] = {}
    environment: dict[str, str] = {}
    for file in files:
        try:
            tree = tomllib.loads(read_text(file, _LARGEST, "a configuration"))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{file}: not TOML: {error}") from error
        for name, value in _table(tree.pop("environment", {}), file, "environment").items():
            if name not in _ENVIRONMENT:
                raise _unknown(file, f"environment.{name}", name, _ENVIRONMENT)
            if not isinstance(value, str):
                raise InputError(f"{file}: environment.{name}: expected a text, got {value!r}")
            environment[_ENVIRONMENT[name]] = value
        for command, name, value in _walk(root, tree, file, ()):
            options.setdefault(command, {})[name] = (value, file)
    return Config(files, options, environment)


def _walk(
    command: Any, table: Mapping[str, Any], file: Path, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    members = getattr(command, "commands", {})
    options = {} if members else _long_options(command)
    for name, value in table.items():
        where = ".".join((*path, name))
        if name in members:
            yield from _walk(members[name], _table(value, file, where), file, (*path, name))
        elif name in options:
            _demand_kind(options[name], value, file, where)
            yield path, name, value
        else:
            raise _unknown(file, where, name, members or options)


def _table(value: object, file: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {where}: expected a table, got {value!r}")
    return value


def _long_options(command: Any) -> dict[str, Any]:
    """The options that a file may set, by their long name without the dashes."""
    found = {}
    for option in command.params:
        for word in getattr(option, "opts", ()):
            # An option that ends the command (--help) has no place in a file.
            if word.startswith("--") and not option.is_eager:
                found[word[2:]] = option
    return found


def _demand_kind(option: Any, value: object, file: Path, where: str) -> None:
    many, flag = bool(getattr(option, "multiple", False)), bool(getattr(option, "is_flag", False))
    if flag:
        right, wanted = isinstance(value, bool), "true or false"
    elif many:
        right = isinstance(value, list) and all(_plain(one) for one in value)
        wanted = "a list of texts"
    else:
        right, wanted = _plain(value), "a text or a number"
    if not right:
        raise InputError(f"{file}: {where}: expected {wanted}, got {value!r}")


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _unknown(file: Path, where: str, name: str, there: Mapping[str, object]) -> InputError:
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"{file}: {where}: there is no such key", hint=f"{hint}there are {', '.join(sorted(there))}"
    )


def as_defaults(root: Any, config: Config) -> dict[str, Any]:
    """The options as Typer's map of defaults: tables by command, keys as its parameters are called."""
    tree: dict[str, Any] = {}
    for path, options in config.options.items():
        command, table = root, tree
        for name in path:
            command = command.commands[name]
            table = table.setdefault(name, {})
        known = _long_options(command)
        for name, (value, _) in options.items():
            table[str(known[name].name)] = value
    return tree


def apply_environment(config: Config) -> None:
    """What the files say of the environment, where the environment does not say it itself."""
    for variable, value in config.environment.items():
        os.environ.setdefault(variable, value)


@app.command("config")
def show_config(json: Json = False) -> None:
    """Say which configuration counts here: files, options, variables."""
    from typer.main import get_command

    config = load_config(get_command(app))
    rows = [
        (" ".join(command), name, value, file)
        for command, options in sorted(config.options.items())
        for name, (value, file) in sorted(options.items())
    ]
    variables = {name: value for name, value in os.environ.items() if name.startswith("FREEPAGE_")}
    if json:
        print_json(
            {
                "files": [str(file) for file in config.files],
                "options": [
                    {"command": command, "option": name, "value": value, "file": str(file)}
                    for command, name, value, file in rows
                ],
                "environment": variables,
            }
        )
        return
    for file in config.files:
        typer.echo(f"file {file}")
    for command, name, value, file in rows:
        typer.echo(f"{command} --{name} {value!r}  ({file})")
    for name, value in sorted(variables.items()):
        typer.echo(f"{name}={value}")
    if not (config.files or variables):
        typer.echo(f"nothing: no {CONFIG_FILE} here or above, none of yours, and no variable FREEPAGE_...")
