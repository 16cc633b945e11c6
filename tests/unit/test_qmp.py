# SPDX-License-Identifier: GPL-2.0-or-later
"""Our second monitor, against a QEMU that is a few lines of Python."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, GuestLost
from harness.events import Deadline, EventStream
from harness.migration.device import find_balloon, read_counters
from harness.migration.qmp import CLOSED, CommandError, Monitor, MonitorLoop, QmpEvent, translate
from harness.migration.transcript import Transcript

GREETING = {
    "QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 13}, "package": ""}, "capabilities": []}
}


class FakeQemu:
    """Answers commands from a table; sends what it is told to."""

    def __init__(self, path: Path, answers: dict[str, object], *, chatty: int = 0, rude: int = 0) -> None:
        """How many connections get an event in the midst of their negotiation (``chatty``), or
        before they are greeted (``rude``)."""
        self._answers = answers
        self._rude = rude
        self._chatty = chatty
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self.connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            self.connection = connection
            # Who hangs up with something left unread resets the connection.
            with contextlib.suppress(ConnectionError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        if self._rude:
            self._rude -= 1
            self.event("RESUME")
        self.send(GREETING)
        text = ""
        while piece := connection.recv(65536):
            text += piece.decode()
            # qemu.qmp ends no line after its messages: each is one JSON value.
            while text:
                try:
                    message, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[end:]
                self._answer(message)

    def _answer(self, message: dict[str, object]) -> None:
        answer = self._answers.get(str(message["execute"]), {})
        if answer is None:
            return  # never answers
        if message["execute"] == "qmp_capabilities" and self._chatty:
            self._chatty -= 1
            self.event("MIGRATION", status="active")
        key = "error" if isinstance(answer, dict) and "class" in answer else "return"
        self.send({key: answer, **({"id": message["id"]} if "id" in message else {})})

    def send(self, message: object) -> None:
        assert self.connection is not None
        self.connection.sendall(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, **data: object) -> None:
        self.send({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}})

    def die(self) -> None:
        assert self.connection is not None
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class Setup:
    def __init__(self, qemu: FakeQemu, monitor: Monitor, events: EventStream, transcript: Path) -> None:
        self.qemu = qemu
        self.monitor = monitor
        self.events = events
        self.transcript = transcript
        self.heard: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
        monitor.listen(self.heard.put)

    def said(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.transcript.read_text().splitlines()]


ANSWERS: dict[str, object] = {
    "query-status": {"status": "running", "running": True},
    "system_reset": {"class": "GenericError", "desc": "not today"},
    "stop": None,
    "qom-list": [
        {"name": "type", "type": "string"},
        {"name": "net0", "type": "child<virtio-net-pci>"},
        {"name": "balloon0", "type": "child<virtio-balloon-pci>"},
    ],
    "qom-get": {"requests": 3},
}


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    path, log = tmp_path / "qmp", tmp_path / "log"
    qemu = FakeQemu(path, ANSWERS)
    events = EventStream()
    with MonitorLoop() as loop, Transcript(log) as transcript:
        monitor = Monitor.connect(loop, "source", path, events, transcript, Deadline(10, "connect"))
        yield Setup(qemu, monitor, events, log)
        monitor.close()


def test_a_command_and_its_answer(setup: Setup) -> None:
    assert setup.monitor.execute("query-status") == {"status": "running", "running": True}
    assert setup.monitor.pid == os.getpid()
    assert any("return" in line for line in setup.said())


def test_a_refusal_names_command_and_reason(setup: Setup) -> None:
    with pytest.raises(CommandError, match=r"refused system_reset.*not today"):
        setup.monitor.execute("system_reset")


def test_a_command_without_an_answer_is_bounded(setup: Setup) -> None:
    with pytest.raises(DeadlineExceeded, match="stop on the source"):
        setup.monitor.execute("stop", seconds=0.05)


def test_events_reach_the_stream_the_listeners_and_the_transcript(setup: Setup) -> None:
    setup.qemu.event("FREE_PAGE_INFO_HOLD", id=7, point="request")
    heard = setup.heard.get(timeout=5)
    assert heard == QmpEvent("source", "FREE_PAGE_INFO_HOLD", {"id": 7, "point": "request"})
    event = setup.events.wait(lambda e: e.kind == "FREE_PAGE_INFO_HOLD", Deadline(5, "the event"))
    assert event.source == "source.qmp"
    assert event.data["data"] == {"id": 7, "point": "request"}
    assert any(line.get("event", {}) for line in setup.said())


def test_events_that_come_with_the_end_are_not_lost(setup: Setup) -> None:
    for number in range(20):
        setup.qemu.event("MIGRATION_PASS", **{"pass": number})
    setup.qemu.die()
    names = []
    while not names or names[-1] != CLOSED:
        names.append(setup.heard.get(timeout=5).name)
    assert names == ["MIGRATION_PASS"] * 20 + [CLOSED]


def test_a_qemu_that_dies_in_a_command_is_a_lost_guest(setup: Setup) -> None:
    killer = threading.Timer(0.05, setup.qemu.die)
    killer.start()
    with pytest.raises(GuestLost, match="gone before it answered stop"):
        setup.monitor.execute("stop")


def test_whether_a_qemu_has_ended(setup: Setup) -> None:
    assert not setup.monitor.ended()
    setup.qemu.die()
    while setup.heard.get(timeout=5).name != CLOSED:
        pass
    assert setup.monitor.ended()


@pytest.mark.parametrize("habits", [{"chatty": 2}, {"rude": 2}])
def test_an_event_may_come_before_the_first_answer(tmp_path: Path, habits: dict[str, int]) -> None:
    FakeQemu(tmp_path / "qmp", ANSWERS, **habits)
    with MonitorLoop() as loop, Transcript(tmp_path / "log") as transcript:
        deadline = Deadline(10, "connect")
        monitor = Monitor.connect(loop, "source", tmp_path / "qmp", EventStream(), transcript, deadline)
        assert monitor.execute("query-status")
        monitor.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with (
        MonitorLoop() as loop,
        Transcript(tmp_path / "log") as transcript,
        pytest.raises(GuestLost, match="does not answer"),
    ):
        Monitor.connect(loop, "source", tmp_path / "none", EventStream(), transcript, Deadline(1, "connect"))


def test_the_balloon_is_found_behind_its_transport(setup: Setup) -> None:
    path = find_balloon(setup.monitor)
    assert path == "/machine/peripheral/balloon0/virtio-backend"
    assert read_counters(setup.monitor, path) == {"requests": 3}


@pytest.mark.parametrize("message", [{}, {"event": "X"}, {"event": "X", "data": 3}])
def test_malformed_events_are_kept_as_far_as_they_go(message: dict[str, object]) -> None:
    event = translate("source", message)
    assert event.data == {}
    assert event.name == message.get("event", "?")
