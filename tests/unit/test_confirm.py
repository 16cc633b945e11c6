# SPDX-License-Identifier: GPL-2.0-or-later
"""What is held back on the way to libvirt's daemon, and what never is."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.migration.confirm import ConfirmGate, confirms

PROGRAM = 0x20008086
PERFORM, CONFIRM, CONFIRM_OLD = 305, 307, 218
CALL, REPLY = 0, 1


def packet(procedure: int, body: bytes, *, program: int = PROGRAM, kind: int = CALL) -> bytes:
    rest = struct.pack(">IIiiIi", program, 1, procedure, kind, 7, 0) + body
    return struct.pack(">I", 4 + len(rest)) + rest


def word(number: int) -> bytes:
    return struct.pack(">i", number)


BEFORE = packet(PERFORM, b"guest" * 3 + word(0))
GOOD = packet(CONFIRM, b"domain and cookie" + word(0))
GIVEN_UP = packet(CONFIRM, b"domain and cookie" + word(1))


def test_what_is_a_confirmation() -> None:
    assert confirms(GOOD)
    assert confirms(packet(CONFIRM_OLD, word(0)))
    assert not confirms(GIVEN_UP)
    assert not confirms(BEFORE)
    assert not confirms(packet(CONFIRM, word(0), kind=REPLY))
    assert not confirms(packet(CONFIRM, word(0), program=0x20008087))
    assert not confirms(packet(CONFIRM, b""))
    assert not confirms(b"")


class Ends:
    """A client, a gate, and a daemon that keeps what it gets."""

    def __init__(self, folder: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / "daemon.sock"))
        listener.listen(1)
        self.gate = ConfirmGate(folder / "gate.sock")
        self.gate.__enter__()
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client.settimeout(10)
        self.client.connect(str(self.gate.attach(folder / "daemon.sock")))
        listener.settimeout(10)
        self.daemon, _ = listener.accept()
        self.daemon.settimeout(10)
        listener.close()

    def got(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            data = self.daemon.recv(count - len(found))
            assert data
            found += data
        return found

    def nothing_more(self) -> bool:
        """What was sent before an answer came back has been dealt with: the gate has one thread."""
        self.daemon.sendall(b"answer")
        assert self.client.recv(6) == b"answer"
        self.daemon.setblocking(False)
        try:
            return not self.daemon.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.daemon.settimeout(10)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path)
    with ends.client, ends.daemon:
        yield ends
        ends.gate.__exit__(None, None, None)


def test_a_confirmation_waits_and_the_rest_does_not(ends: Ends) -> None:
    ends.client.sendall(BEFORE + GOOD)
    assert ends.got(len(BEFORE)) == BEFORE
    assert ends.nothing_more()
    ends.gate.release()
    assert ends.got(len(GOOD)) == GOOD


def test_a_packet_that_comes_in_pieces(ends: Ends) -> None:
    for byte in BEFORE + GOOD[:20]:
        ends.client.sendall(bytes([byte]))
    assert ends.got(len(BEFORE)) == BEFORE
    ends.client.sendall(GOOD[20:])
    assert ends.nothing_more()
    ends.gate.release()
    assert ends.got(len(GOOD)) == GOOD


def test_what_comes_after_it_waits_as_well(ends: Ends) -> None:
    ends.client.sendall(GOOD + BEFORE)
    assert ends.nothing_more()
    ends.gate.release()
    assert ends.got(len(GOOD + BEFORE)) == GOOD + BEFORE


def test_released_before_it_came(ends: Ends) -> None:
    ends.gate.release()
    ends.gate.release()
    ends.client.sendall(GOOD)
    assert ends.got(len(GOOD)) == GOOD


def test_giving_up_is_never_held(ends: Ends) -> None:
    ends.client.sendall(BEFORE + GIVEN_UP)
    assert ends.got(len(BEFORE + GIVEN_UP)) == BEFORE + GIVEN_UP


def test_a_daemon_that_ends_ends_the_client(ends: Ends) -> None:
    ends.client.sendall(GOOD)
    ends.daemon.close()
    assert ends.client.recv(1) == b""
    ends.gate.release()


def test_no_daemon_there(tmp_path: Path) -> None:
    with ConfirmGate(tmp_path / "gate.sock") as gate, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(gate.attach(tmp_path / "nobody.sock")))
        assert client.recv(1) == b""
    assert not (tmp_path / "gate.sock").exists()


def test_who_waits_for_the_confirmation_is_called_once(ends: Ends) -> None:
    """When the guest has moved, whether that was before anybody asked or after."""
    called = threading.Event()
    ends.client.sendall(BEFORE)
    assert ends.got(len(BEFORE)) == BEFORE
    ends.gate.when_held(called.set)
    assert ends.nothing_more()
    assert not called.is_set()
    ends.client.sendall(GOOD)
    assert called.wait(10)
    late = threading.Event()
    ends.gate.when_held(late.set)
    assert late.is_set()
    assert ends.nothing_more()
    ends.gate.release()
    assert ends.got(len(GOOD)) == GOOD
