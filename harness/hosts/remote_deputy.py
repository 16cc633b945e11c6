# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness's end of a deputy: calls and answers, and a count of every byte.

What comes back is from another machine, and is checked like any input.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import threading
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from importlib import resources
from typing import IO, Final

from harness.deputy import wire
from harness.errors import DeadlineExceeded, HostLost, MachineryError
from harness.events import Deadline
from harness.hosts.remote_ssh import SSH_SECONDS, SshConnection

#: Its keeper gives up after a minute of silence.
_SIGN_OF_LIFE_SECONDS: Final = 10.0
#: No call of ours takes longer: the largest guest's digests, on a slow machine.
_CALL_SECONDS: Final = 900.0

_Answer = tuple[Mapping[str, object], bytes]


def archive() -> bytes:
    """The deputy as one file that Python runs.  The same source gives the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        # The files' times are left at zip's beginning of time.
        packed.writestr(zipfile.ZipInfo("__main__.py"), "from deputy.serve import main\n\nmain()\n")
        folder = resources.files("harness") / "deputy"
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                packed.writestr(zipfile.ZipInfo(f"deputy/{entry.name}"), entry.read_bytes())
    return content.getvalue()


class DeputyClient:
    """Calls to the deputy of one host.  Thread-safe; the deputy does one thing after the other."""

    def __init__(self, name: str, ssh: SshConnection) -> None:
        """``name``: of the host, for messages.  Returns when the deputy has said hello."""
        self.name = name
        self._ssh = ssh
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[_Answer]] = {}
        self._numbers = itertools.count(1)
        self._bytes: dict[tuple[str, str], int] = {}
        self._lost = threading.Event()
        self._start()
        threading.Thread(target=self._listen, name=f"deputy-{name}", daemon=True).start()
        threading.Thread(target=self._stay_alive, name=f"alive-{name}", daemon=True).start()

    def _start(self) -> None:
        program = archive()
        with contextlib.suppress(OSError):  # it has ended already: what it said tells why
            self._ssh.stdin.write(b"%d\n" % len(program) + program)
            self._ssh.stdin.flush()
        hello: Future[wire.Frame | None] = Future()
        threading.Thread(target=_read_hello, args=(self._ssh.stdout, hello), daemon=True).start()
        try:
            frame = hello.result(2 * SSH_SECONDS)
        except (wire.WireError, FutureTimeout) as error:
            raise MachineryError(
                f"{self._ssh.uri.place} answers, but not as our program does: {error or 'in time'}",
                hint="a login shell that prints something of its own is in the way of programs",
            ) from error
        if frame is None or frame[0].get("hello") != 1:
            raise self._ssh.why()

    def call(
        self,
        verb: str,
        payload: bytes = b"",
        *,
        purpose: str = "other",
        deadline: Deadline | None = None,
        **what: object,
    ) -> _Answer:
        """Have something done.  ``purpose``: under what its bytes are counted.

        Raises :class:`MachineryError` with the deputy's words if it could not be done,
        :class:`HostLost` if there is no deputy any more.
        """
        number = next(self._numbers)
        frame = wire.pack({"id": number, "verb": verb, **what}, payload)
        future: Future[_Answer] = Future()
        with self._lock:
            self._waiting[number] = future
        self._send(frame)
        if self._lost.is_set():
            raise self.lost()
        seconds = _CALL_SECONDS if deadline is None else deadline.timeout()
        try:
            header, data = future.result(seconds)
        except FutureTimeout:
            raise DeadlineExceeded(f"the {self.name}: {verb}: not within {seconds:g} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        with self._lock:
            size = len(frame) + wire.HEAD.size + len(json.dumps(header)) + len(data)
            self._bytes[purpose, verb] = self._bytes.get((purpose, verb), 0) + size
        if "ok" not in header:
            raise MachineryError(f"the {self.name} ({self._ssh.uri.place}): {header.get('error')}")
        return header, data

    def _send(self, frame: bytes) -> None:
        try:
            with self._lock:
                self._ssh.stdin.write(frame)
                self._ssh.stdin.flush()
        except (OSError, ValueError):  # ValueError: closed
            self._give_up()

    def _listen(self) -> None:
        with contextlib.suppress(wire.WireError, OSError, ValueError):
            while (frame := wire.read_frame(self._ssh.stdout.read)) is not None:
                header, data = frame
                with self._lock:
                    future = self._waiting.get(header.get("id", 0))
                if future is not None and not future.done():
                    future.set_result((header, data))
        self._give_up()

    def _stay_alive(self) -> None:
        sign = wire.pack({"alive": True})
        while not self._lost.wait(_SIGN_OF_LIFE_SECONDS):
            self._send(sign)

    def _give_up(self) -> None:
        self._lost.set()
        with self._lock:
            waiting = list(self._waiting.values())
        for future in waiting:
            if not future.done():
                future.set_exception(self.lost())

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost.is_set()

    def lost(self) -> HostLost:
        """The error for a connection that has ended."""
        return HostLost(
            f"the connection to the {self.name} ({self._ssh.uri.place}) is lost",
            last_lines=self._ssh.said()[-10:],
            hint="what was running there is cleaned up by our program on that machine",
        )

    def bytes_for(self, purpose: str) -> int:
        """Bytes that went either way for a purpose; payloads and what goes around them."""
        with self._lock:
            return sum(count for (of, _), count in self._bytes.items() if of == purpose)

    @property
    def bytes_by_verb(self) -> Mapping[str, int]:
        """Bytes that went either way by verb, whatever their purpose."""
        found: dict[str, int] = {}
        with self._lock:
            for (_, verb), count in self._bytes.items():
                found[verb] = found.get(verb, 0) + count
        return found


def _read_hello(stream: IO[bytes], hello: Future[wire.Frame | None]) -> None:
    try:
        hello.set_result(wire.read_frame(stream.read))
    except BaseException as error:
        hello.set_exception(error)


def unpacked(data: bytes, most: int) -> bytes:
    """Decompress at most ``most`` bytes; more is an error, not a full memory."""
    packer = zlib.decompressobj()
    try:
        content = packer.decompress(data, most)
    except zlib.error as error:
        raise MachineryError(f"a remote host's answer is damaged: {error}") from error
    if not packer.eof:
        raise MachineryError(f"a remote host's answer has more than the {most} bytes that it should have")
    return content
