# SPDX-License-Identifier: GPL-2.0-or-later
"""Files from a server that breaks off, sends too much, sends something else, or has nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain import download as module
from harness.toolchain.download import NotThere, Promise, download

WHOLE = b"whole" * 1000
PROMISE = Promise(len(WHOLE), hashlib.sha256(WHOLE).hexdigest())


class Server(ThreadingHTTPServer):
    """Says what its list says, one answer a request: status, announced length (-1: none), body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, int, bytes]] = []
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        status, length, body = self.server.answers.pop(0)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_proxies", dict)
    module._opener.cache_clear()
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()
    module._opener.cache_clear()


def said(events: EventStream) -> list[str]:
    return [str(event.data["text"]) for event in events.history() if event.kind == "message"]


def test_a_file_comes(server: Server, tmp_path: Path) -> None:
    server.answers = [(302, 0, f"{server.address}/other".encode()), (200, len(WHOLE), WHOLE)]
    download(f"{server.address}/file", tmp_path / "file", PROMISE, events=EventStream())
    assert (tmp_path / "file").read_bytes() == WHOLE
    assert server.asked == ["/file", "/other"]


@pytest.mark.parametrize(
    "broken", [(200, len(WHOLE), WHOLE[:100]), (503, 0, b"")], ids=["cut", "unavailable"]
)
def test_what_breaks_off_is_asked_for_again_and_that_is_said(
    server: Server, tmp_path: Path, broken: tuple[int, int, bytes]
) -> None:
    events = EventStream()
    server.answers = [broken, (200, len(WHOLE), WHOLE)]
    download(f"{server.address}/file", tmp_path / "file", PROMISE, events=events)
    assert (tmp_path / "file").read_bytes() == WHOLE
    assert len(said(events)) == 1
    assert "asked again (1 of 2)" in said(events)[0]


def test_what_always_breaks_off_is_an_error(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, len(WHOLE), b"")] * 3
    with pytest.raises(MachineryError, match="the connection ended after 0 of 5000 bytes"):
        download(f"{server.address}/file", tmp_path / "file", PROMISE, events=EventStream())
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, -1, WHOLE[:100]), "it has 100 of 5000 bytes"),
        ((200, len(WHOLE), b"x" * len(WHOLE)), "its SHA-256 is another"),
        ((200, -1, WHOLE * 10), "it is larger than"),
    ],
    ids=["cut", "another", "endless"],
)
def test_what_was_not_promised_is_refused_at_once(
    server: Server, tmp_path: Path, answer: tuple[int, int, bytes], why: str
) -> None:
    server.answers = [answer]
    with pytest.raises(MachineryError, match=f"is not what the archive's signed index promises: {why}"):
        download(f"{server.address}/file", tmp_path / "file", PROMISE, events=EventStream())
    assert not (tmp_path / "file").exists()


def test_what_is_not_there(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, 0, b"")]
    with pytest.raises(NotThere, match="404"):
        download(f"{server.address}/file", tmp_path / "file", PROMISE, events=EventStream())


def test_no_server(server: Server, tmp_path: Path) -> None:
    address = server.address
    server.server_close()
    with pytest.raises(MachineryError, match=r"cannot fetch .*refused"):
        download(f"{address}/file", tmp_path / "file", PROMISE, events=EventStream())
