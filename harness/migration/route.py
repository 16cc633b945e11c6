# SPDX-License-Identifier: GPL-2.0-or-later
"""By what a migration past libvirt goes: QEMU's transports, and the two forms in which its address is said.

::

    route = Tcp("10.77.0.2")
    route.lead(source, destination)             # the destination listens, the source migrates
    route.lead_again(source, destination)       # the same for a migration that is paused in postcopy

A transport is one class: it prepares a :class:`Place` for each side.
"""

# ruff: noqa: ARG002 - not every transport needs both sides

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.errors import MachineryError

if TYPE_CHECKING:
    from harness.migration.qmp import Monitor

#: What the descriptor is called in both QEMUs' monitors.
_DESCRIPTOR: Final = "freepage-migration"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one side listens, or connects to: both of QEMU's forms of it."""

    uri: str
    #: As ``addr`` of a MigrationChannel (qapi/migration.json).
    address: Mapping[str, Any]

    def arguments(self, *, channels: bool) -> dict[str, Any]:
        """For ``migrate`` and ``migrate-incoming``."""
        if not channels:
            return {"uri": self.uri}
        return {"channels": [{"channel-type": "main", "addr": dict(self.address)}]}


@dataclass
class Route(ABC):
    """A transport."""

    #: Say addresses in the form that QEMU has since 8.2, and not as a URI.
    channels: bool = field(default=False, kw_only=True)
    #: The connections that are made already: the first, and those of recoveries.
    _made: int = field(default=0, init=False)

    def lead(self, source: Monitor, destination: Monitor, listens: Callable[[], None] = lambda: None) -> None:
        """Have the destination listen and the source migrate; ``listens`` is called in between.

        Raises :class:`harness.migration.qmp.CommandError` with the words of a QEMU that refuses.
        """
        with self._prepared():
            place = self._to_listen()
            destination.execute("migrate-incoming", place.arguments(channels=self.channels))
            listens()
            source.execute("migrate", self._to_connect(destination).arguments(channels=self.channels))
        self._made += 1

    def lead_again(self, source: Monitor, destination: Monitor) -> None:
        """The same for a migration that is paused in postcopy: migrate-recover knows URIs only."""
        with self._prepared():
            destination.execute("migrate-recover", {"uri": self._to_listen().uri}, at_once=True)
            there = self._to_connect(destination).arguments(channels=self.channels)
            source.execute("migrate", there | {"resume": True})
        self._made += 1

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """What has to be there before, and may be gone afterwards."""
        yield

    @abstractmethod
    def _to_listen(self) -> Place:
        """For the destination."""

    @abstractmethod
    def _to_connect(self, destination: Monitor) -> Place:
        """For the source, once the destination listens."""


@dataclass
class Tcp(Route):
    """A port that the destination chooses; or a tap's, on the source's loopback and at the destination.

    ``again``: ports of the destination for the recoveries.  One that it chooses it would be asked for,
    and its main loop may wait for the recovery; and that loop holds on to where it has listened before for as
    long as it waits for events, so that the same port may be in use.
    """

    address: str
    tap: int | None = None
    again: tuple[int, ...] = ()

    def _to_listen(self) -> Place:
        return _inet(self.address, str(self._own_port() or 0))

    def _to_connect(self, destination: Monitor) -> Place:
        if self.tap is not None and self._made == 0:
            return _inet("127.0.0.1", str(self.tap))
        return _inet(self.address, str(self._own_port() or _port(destination)))

    def _own_port(self) -> int | None:
        """None: the destination chooses."""
        if self._made == 0:
            return self.tap
        return self.again[self._made - 1] if self._made <= len(self.again) else None


@dataclass
class Unix(Route):
    """A socket in a folder that both QEMUs see; another one for each connection."""

    folder: Path
    _path: Path = Path()

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        self._path = _new(self.folder)
        yield

    def _to_connect(self, destination: Monitor) -> Place:
        return self._to_listen()

    def _to_listen(self) -> Place:
        address = {"transport": "socket", "type": "unix", "path": str(self._path)}
        return Place(f"unix:{self._path}", address)


@dataclass
class Descriptor(Route):
    """Descriptors that both QEMUs are given (SCM_RIGHTS, QMP's getfd): a pair of connected sockets.

    ``one_way``: the ends of a pipe.  ``again``: how many recoveries there will be.  The destination is given
    its ends for those before it begins: later its main loop, which takes them, may wait for the recovery.
    """

    one_way: bool = False
    again: int = 0

    def lead(self, source: Monitor, destination: Monitor, listens: Callable[[], None] = lambda: None) -> None:
        """With those for the recoveries."""
        for number in range(1 + self.again):
            self._hand_ends(_descriptor(number), source, destination)
        super().lead(source, destination, listens)

    def _hand_ends(self, name: str, source: Monitor, destination: Monitor) -> None:
        if self.one_way:
            ends = os.pipe()
        else:
            here, there = socket.socketpair()
            ends = there.detach(), here.detach()
        try:
            for side, end in zip((destination, source), ends, strict=True):
                side.hand_file(end, "getfd", {"fdname": name})
        finally:
            for end in ends:
                os.close(end)

    def _to_listen(self) -> Place:
        name = _descriptor(self._made)
        return Place(f"fd:{name}", {"transport": "socket", "type": "fd", "str": name})

    def _to_connect(self, destination: Monitor) -> Place:
        return self._to_listen()


@dataclass
class Exec(Route):
    """A command on each side: dd, into a FIFO that both see, and out of it.  It goes one way only."""

    folder: Path
    _fifo: Path = Path()

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        self._fifo = _new(self.folder)
        os.mkfifo(self._fifo, 0o600)
        yield

    def _to_listen(self) -> Place:
        return self._command(f"if={self._fifo}")

    def _to_connect(self, destination: Monitor) -> Place:
        return self._command(f"of={self._fifo}")

    def _command(self, word: str) -> Place:
        program = shutil.which("dd")
        if program is None:
            raise MachineryError("there is no program dd, through which the migration was to go")
        words = [program, word, "bs=65536", "status=none"]
        # Of a URI QEMU makes a shell's line.
        return Place(f"exec:{shlex.join(words)}", {"transport": "exec", "args": words})


def _descriptor(number: int) -> str:
    """What the ends of a connection are called in both monitors: the first, or that of a recovery."""
    return _DESCRIPTOR if number == 0 else f"{_DESCRIPTOR}-{number}"


def _new(folder: Path) -> Path:
    """A name that no earlier migration has used."""
    return folder / f"stream-{secrets.token_hex(4)}"


def _inet(host: str, port: str) -> Place:
    address = {"transport": "socket", "type": "inet", "host": host, "port": port}
    return Place(f"tcp:{host}:{port}", address)


def _port(destination: Monitor) -> str:
    """Where a QEMU that was told to choose a port listens."""
    answer = destination.execute("query-migrate")
    places = answer.get("socket-address") if isinstance(answer, Mapping) else None
    if not isinstance(places, list) or not places:
        raise MachineryError(f"the destination's QEMU does not say where it listens: {answer!r}")
    return str(places[0]["port"])
