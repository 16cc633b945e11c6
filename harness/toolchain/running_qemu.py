# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program that is said to be a QEMU really runs, seen in the process that it becomes.

A wrapper is a script with arguments of its own, or a loader with libraries: what counts
is the program that it ends up in.  So it is started once, without a machine, and looked
at from outside (``/proc``) and by QMP.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, Final

from harness.errors import InputError
from harness.events import patience

_SECONDS: Final = 30.0
_NOTHING: Final = ("-machine", "none", "-S", "-nodefaults", "-display", "none")


@dataclass(frozen=True, slots=True)
class RunningQemu:
    """What a program became when it was started.

    ``words``: the arguments that it adds itself, those of a loader among them.  ``takes_detach``: whether
    QMP's ``migrate`` has an argument of that name (QEMU before 11.1).
    """

    program: Path
    words: tuple[str, ...]
    takes_detach: bool


def look_at(path: Path) -> RunningQemu:
    """Start a program as a QEMU without a machine, and look.

    Raises :class:`InputError` if it does not become a QEMU, with its own words.
    """
    with tempfile.TemporaryDirectory(prefix="freepage-look.") as folder:
        place = Path(folder, "qmp")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(str(place))
            listening.listen(1)
            words = (*_NOTHING, "-qmp", f"unix:{str(place).replace(',', ',,')}")
            with _started(path, words, listening) as connection:
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                pid: int = struct.unpack("3i", peer)[0]
                with connection.makefile("rwb", buffering=0) as monitor:
                    _ask(monitor, "qmp_capabilities")
                    schema = _ask(monitor, "query-qmp-schema")
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    program = _program(pid)
                    _ask(monitor, "quit")
        own = _own_words([word.decode(errors="replace") for word in command], words)
        return RunningQemu(program, own, "detach" in arguments_of(schema, "migrate"))


@contextlib.contextmanager
def _started(path: Path, words: Sequence[str], listening: socket.socket) -> Iterator[socket.socket]:
    """The program, which connects to us; ended in any case."""
    with tempfile.TemporaryFile() as said, _running([str(path), *words], said) as process:
        try:
            yield _accepted(listening, process)
        except (OSError, ValueError, EOFError) as error:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()
            why = last[-1] if last else str(error) or "it says nothing"
            raise InputError(f"{path} is not a QEMU that runs here: {why}") from error


@contextlib.contextmanager
def _running(command: Sequence[str], said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    except OSError as error:  # no program at all: wrong format, wrong architecture
        raise InputError(f"{command[0]} cannot be run: {error.strerror}") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _accepted(listening: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """The connection that the program makes.  Raises EOFError if it ends instead."""
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(patience(_SECONDS))]
    finally:
        os.close(ended)
    if listening not in ready:
        raise EOFError("it ended" if ready else f"it took over {patience(_SECONDS):g} s")
    connection, _ = listening.accept()
    connection.settimeout(patience(_SECONDS))
    return connection


def _ask(monitor: RawIOBase, command: str) -> object:
    monitor.write(json.dumps({"execute": command}).encode() + b"\n")
    monitor.flush()
    while line := monitor.readline():
        answer = json.loads(line)
        if isinstance(answer, dict) and ("return" in answer or "error" in answer):
            return answer.get("return")
    raise EOFError(f"it ended at {command}")


def arguments_of(schema: object, command: str) -> frozenset[str]:
    """The arguments of a QMP command, by what ``query-qmp-schema`` says."""
    rows = [row for row in schema if isinstance(row, Mapping)] if isinstance(schema, list) else []
    named = {str(row.get("name")): row for row in rows}
    entry = named.get(str(named.get(command, {}).get("arg-type")), {})
    members = entry.get("members")
    return frozenset(str(one["name"]) for one in members) if isinstance(members, list) else frozenset()


def _own_words(command: Sequence[str], ours: Sequence[str]) -> tuple[str, ...]:
    """A process's arguments but for those that we gave."""
    for at in range(1, len(command) - len(ours) + 1):
        if tuple(command[at : at + len(ours)]) == tuple(ours):
            return (*command[1:at], *command[at + len(ours) :])
    return tuple(command[1:])


def _program(pid: int) -> Path:
    """The program that a process runs: not the loader, where that was started in its place."""
    executable = Path(f"/proc/{pid}/exe").readlink()
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    return program_of(executable, maps)


def program_of(executable: Path, maps: str) -> Path:
    """The program, out of what a process has mapped to be executed; libraries and loaders are called so."""
    rows = (line.split(maxsplit=5) for line in maps.splitlines())
    mapped = (Path(row[5]) for row in rows if len(row) == 6 and "x" in row[1] and row[5].startswith("/"))
    candidates = (executable, *mapped)
    return next((path for path in candidates if ".so" not in path.suffixes), executable)
