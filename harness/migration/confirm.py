# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt ends the source's QEMU when it confirms a migration; here that waits until the QEMU was read.

``migrate3`` runs five phases one after the other: begin, prepare, perform, finish,
confirm (libvirt's docs/migration.html and virDomainMigrateVersion3Full in its
src/libvirt-domain.c).  The last one, a call to the source's daemon, ends its QEMU,
some ten milliseconds after the guest has moved.  What is only in that process,
RAM that is in no file and its statistics, has to be read before; and we may get
no processor for longer than that.  So the call that begins that phase goes
through here, and is held back until we say so::

    with ConfirmGate(folder / "confirm.sock") as gate:
        connection = source.open(through=gate.attach)
        ... migrate3 on that connection, in another thread ...
        ... read the source's QEMU, which has completed, and stands still ...
        gate.release()

Nothing else is held back: no other call, no answer, and no confirmation that a
migration was *given up*, for which nobody might ever release the gate.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.guest.ports import PortOwner

#: A packet: its length, itself included, and the header (libvirt's src/rpc/virnetprotocol.x), big-endian:
#: program, version, procedure, type, serial, status.
_LENGTH: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIiiIi")
_LAST_WORD: Final = struct.Struct(">i")

_REMOTE_PROGRAM: Final = 0x20008086
_CALL: Final = 0
#: REMOTE_PROC_DOMAIN_MIGRATE_CONFIRM3 and ..._CONFIRM3_PARAMS, of an ABI that never changes.
#: The arguments of both end with ``int cancelled``.
_CONFIRM: Final = frozenset({218, 307})

_CHUNK: Final = 65536


def confirms(packet: bytes) -> bool:
    """Whether a whole packet of libvirt's protocol says that a migration has gone well."""
    head = _LENGTH.size + _HEADER.size
    if len(packet) < head + _LAST_WORD.size:
        return False
    program, _, procedure, kind, _, _ = _HEADER.unpack_from(packet, _LENGTH.size)
    (cancelled,) = _LAST_WORD.unpack_from(packet, len(packet) - _LAST_WORD.size)
    return program == _REMOTE_PROGRAM and kind == _CALL and procedure in _CONFIRM and not cancelled


class ConfirmGate(PortOwner):
    """Between a client and its daemon.  Context manager; leaving it ends the connection.

    ``path`` is where it listens, for one client, in a folder that is ours alone.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("confirm")
        self._path = path
        # What is held back, and whether it still is: the thread's and the caller's.
        self._lock = threading.Lock()
        self._released = False
        self._held = b""
        self._unparsed = b""
        self._daemon: socket.socket | None = None
        self._when_held: Callable[[], None] | None = None

    def _ended(self) -> None:
        self._path.unlink(missing_ok=True)

    def attach(self, daemon: Path) -> Path:
        """Stand in front of the daemon that listens at ``daemon``: where to connect to instead."""

        def connected(client: socket.socket) -> None:
            there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                there.connect(str(daemon))
            except OSError:
                there.close()
                client.close()
                return
            self._daemon = there
            self._ports.watch(client, lambda: self._from_client(client, there))
            self._ports.watch(there, lambda: self._from_daemon(client, there))

        self._ports.listen(self._path, connected)
        return self._path

    def release(self) -> None:
        """Let the confirmation go, whether it has come already or not.  May be called again."""
        with self._lock:
            self._released = True
            held, self._held = self._held, b""
            if held and self._daemon is not None:
                # A daemon that has gone: its client is told so by the end of the connection.
                with contextlib.suppress(OSError):
                    self._daemon.sendall(held)

    def when_held(self, call: Callable[[], None]) -> None:
        """Call something once the confirmation waits here: the guest has moved, and both QEMUs are there.

        In the caller's thread, or in the gate's own; it must be quick.
        """
        with self._lock:
            waits = bool(self._held)
            if not waits:
                self._when_held = call
        if waits:
            call()

    # --- in the thread

    def _from_client(self, client: socket.socket, daemon: socket.socket) -> None:
        data = _receive(client)
        if not data:
            self._end(client, daemon)
            return
        self._unparsed += data
        with self._lock:
            for packet in self._packets():
                # Behind what is held back all has to wait: the order is the protocol's.
                if not self._released and (self._held or confirms(packet)):
                    self._held += packet
                else:
                    with contextlib.suppress(OSError):
                        daemon.sendall(packet)
            call = None
            if self._held:
                call, self._when_held = self._when_held, None
        if call is not None:
            call()

    def _packets(self) -> list[bytes]:
        """The whole packets that have come; the begun one is kept."""
        found = []
        while len(self._unparsed) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._unparsed)
            length = max(length, _LENGTH.size)
            if len(self._unparsed) < length:
                break
            found.append(self._unparsed[:length])
            self._unparsed = self._unparsed[length:]
        return found

    def _from_daemon(self, client: socket.socket, daemon: socket.socket) -> None:
        data = _receive(daemon)
        if not data:
            self._end(client, daemon)
            return
        with contextlib.suppress(OSError):
            client.sendall(data)

    def _end(self, client: socket.socket, daemon: socket.socket) -> None:
        with self._lock:
            self._daemon = None
            self._held = b""
            for end in (client, daemon):
                self._ports.forget(end)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_CHUNK)
    except OSError:
        return b""
