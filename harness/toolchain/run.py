# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs other programs for the toolchain: no shell, output in a log, errors that say what to do.

A program that is missing is named together with the Debian package that has
it.  A program that fails is reported with its last lines.  Whatever ends the
harness (an exception, Ctrl-C, SIGKILL) ends the program too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import DeadlineExceeded, MachineryError
from harness.invoke import bound_to_us
from harness.toolchain.cache import no_space
from harness.toolchain.system_packages import how_to_install

# What each program is for is plain from its caller; this is only where it comes from.
PACKAGES: Mapping[str, str] = {
    "bc": "bc",
    "bison": "bison",
    "clang": "clang",
    "flex": "flex",
    "gcc": "gcc",
    "gpgv": "gpgv",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "readelf": "binutils",
    "pahole": "dwarves",
    "patch": "patch",
    "pkg-config": "pkg-config",
    "strip": "binutils",
    "tar": "tar",
    "unshare": "util-linux",
}

#: Programs for which another will do.
OR_ELSE: Mapping[str, tuple[str, ...]] = {"gpgv": ("sqv",)}

#: Programs that no run needs as it is by default, and what needs them.
FOR_WHAT: Mapping[str, str] = {
    "bc": "the debug kernel",
    "bison": "the debug kernel",
    "clang": "QEMU's fuzzer",
    "flex": "the debug kernel",
    "mke2fs": "a Debian guest",
    "mmdebstrap": "a Debian guest",
    "pahole": "the debug kernel",
}

_TAIL = 25
# An ordinary user's PATH leaves out where some programs are.
_EXTRA_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path() -> str:
    """PATH, with the folders for administration at its end."""
    here = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*here, *(folder for folder in _EXTRA_PATH if folder not in here)])


def find_program(name: str) -> Path:
    """The program's path, or an error that names it and its package."""
    found = shutil.which(name, path=search_path())
    if found is None:
        package = PACKAGES.get(name)
        raise MachineryError(
            f"the program '{name}' is missing",
            hint=how_to_install(package) if package else "install it",
        )
    return Path(found)


def lacking_programs() -> list[str]:
    """Those of :data:`PACKAGES` that this machine has not, nor what will do for them; sorted."""
    return sorted(
        name
        for name in PACKAGES
        if all(shutil.which(word, path=search_path()) is None for word in (name, *OR_ELSE.get(name, ())))
    )


def build_environment(**more: str) -> dict[str, str]:
    """The environment for a program whose output is read: C locale, whole PATH."""
    return {**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8", "LANGUAGE": ""} | more


class ProgramFailed(MachineryError):  # noqa: N818 - the name says what happened
    """A program has ended badly; ``status`` is below 0 for a signal, ``lines`` the last that it printed."""

    def __init__(self, message: str, status: int, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.status = status
        self.lines = tuple(lines)


def run_program(
    argv: Sequence[str | Path],
    *,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    seconds: float | None = None,
    stdin: str | None = None,
    told: Mapping[Path, Path] | None = None,
) -> str:
    """Run a program to its end and return what it printed (both streams, in order).

    ``what`` completes "cannot ..." in the error.  ``stdin`` is what it is given to read: then it is asked
    something, only its standard output is an answer, and its standard error goes into the error.  ``log``
    gets all output, ``on_line`` each line as it comes.  ``seconds`` bounds a program that might
    hang (not one that is followed line by line: those are builds).  ``told``: what lies in a folder that
    will be gone is told in an error as what it was copied from.
    """
    assert (seconds is None and stdin is None) or (log is None and on_line is None)
    command = [str(find_program(str(argv[0]))), *(str(word) for word in argv[1:])]
    process = subprocess.Popen(
        bound_to_us(command),
        cwd=cwd,
        env=dict(env) if env is not None else build_environment(),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stdin is None else subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to us first; we end the group
    )
    try:
        lines = _collect(process, log, on_line, seconds, stdin)
    except subprocess.TimeoutExpired as error:
        name = Path(command[0]).name
        raise DeadlineExceeded(f"cannot {what}: {name} took over {error.timeout:g} s") from error
    finally:
        _end_group(process)
    if process.returncode != 0:
        raise _failure(what, command, process.returncode, _found_again(lines, cwd, told or {}), cwd, log)
    return "".join(lines)


def _collect(
    process: subprocess.Popen[str],
    log: Path | None,
    on_line: Callable[[str], None] | None,
    seconds: float | None,
    stdin: str | None,
) -> list[str]:
    if on_line is None and log is None:
        output, complaint = process.communicate(stdin, timeout=seconds)
        return (complaint if complaint and process.returncode else output).splitlines(keepends=True)
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=5000)
    with (log or Path(os.devnull)).open("a", encoding="utf-8") as file:
        for line in process.stdout:
            lines.append(line)
            file.write(line)
            if on_line is not None:
                on_line(line.rstrip("\n"))
    process.wait()
    return list(lines)


def _end_group(process: subprocess.Popen[str]) -> None:
    """Leave nothing of the program behind, in whichever way we got here."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for stream in (process.stdout, process.stderr, process.stdin):
        if stream is not None:
            stream.close()


#: What a compiler says begins with "FILE:LINE:"; so does where a file was included from, behind words.
_PLACE = re.compile(r"(?P<file>[^\s:]+)(?=:\d+[:,])")


def _found_again(lines: Sequence[str], cwd: Path | None, told: Mapping[Path, Path]) -> list[str]:
    """The lines, with files in them named so that an editor finds them."""

    def name(match: re.Match[str]) -> str:
        path = Path(os.path.normpath((cwd or Path.cwd()) / match["file"]))
        for copied, source in told.items():
            if path.is_relative_to(copied):
                return str(source / path.relative_to(copied))
        # Relative to the build's folder, which is not the editor's.
        return str(path) if path.is_file() else match["file"]

    return [_PLACE.sub(name, line) for line in lines]


def _failure(
    what: str, command: Sequence[str], status: int, lines: Sequence[str], cwd: Path | None, log: Path | None
) -> MachineryError:
    if any("No space left on device" in line for line in lines):
        return no_space(cwd or Path.cwd(), what)
    how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    tail = [f"  | {line.rstrip()}" for line in lines[-_TAIL:]]
    if log is not None:
        tail.append(f"the whole output: {log}")
    message = "\n".join([f"cannot {what}: {Path(command[0]).name} {how}", *tail])
    return ProgramFailed(message, status, [line.rstrip() for line in lines[-_TAIL:]])
