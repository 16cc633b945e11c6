# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a machine, to be asked over QMP what its help does not tell.

    with SilentQemu(path, ("-accel", "tcg")) as qemu:
        qemu.execute("query-migrate-capabilities")

It starts in a tenth of a second, has no guest, and ends with the block.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from harness.errors import InputError
from harness.events import patience
from harness.toolchain.run import build_environment

#: For one answer; a QEMU that says nothing for so long is none that runs here.
_SECONDS: Final = 20.0
#: A line of an answer is far shorter.
_LONGEST: Final = 1 << 20


class RefusedError(Exception):
    """QEMU answered with an error; the text is its own."""


class SilentQemu:
    """Context manager.  Raises :class:`harness.errors.InputError` for a program that is no QEMU that runs."""

    def __init__(self, path: Path, arguments: Sequence[str] = ()) -> None:
        self._path = path
        self._arguments = arguments
        self._stack = contextlib.ExitStack()
        self._lines: IO[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> SilentQemu:
        ours, its = socket.socketpair()
        self._stack.callback(ours.close)
        with its:
            number = its.fileno()
            words = ("-machine", "none", "-nodefaults", "-display", "none", "-S", *self._arguments)
            port = ("-chardev", f"socket,id=qmp,fd={number}", "-mon", "chardev=qmp,mode=control")
            try:
                process = subprocess.Popen(
                    [str(self._path), *words, *port],
                    pass_fds=(number,),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=build_environment(),
                )
            except OSError as error:
                self._stack.close()
                raise InputError(f"{self._path} cannot be run: {error.strerror}") from error
        self._process = process
        self._stack.callback(self._end)
        ours.settimeout(patience(_SECONDS))
        self._socket, self._lines = ours, ours.makefile("rb")
        try:
            self._read()
            self.execute("qmp_capabilities")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """One command's answer.  Raises :class:`RefusedError` with QEMU's words."""
        assert self._socket is not None
        message = {"execute": command, "arguments": dict(arguments or {})}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._silent() from error
        while True:
            answer = self._read()
            if "error" in answer:
                raise RefusedError(str(answer["error"].get("desc", answer["error"])))
            if "return" in answer:
                return answer["return"]

    def _read(self) -> dict[str, Any]:
        assert self._lines is not None
        try:
            line = self._lines.readline(_LONGEST)
            answer = json.loads(line)
        except (OSError, ValueError) as error:
            raise self._silent() from error
        if not isinstance(answer, dict):
            raise self._silent()
        return answer

    def _silent(self) -> InputError:
        self._process.kill()
        said = self._process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
        return InputError(f"{self._path} is not a QEMU that runs here" + (f": {said[-1]}" if said else ""))
