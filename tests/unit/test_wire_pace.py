# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a source sent, by a tap's own clock, against the limit that it had."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from harness.events import Event
from harness.evidence.wire_pace import wire_pace
from harness.hosts.tap import TIMES, StreamTap
from harness.verdict.judge import JudgeInput, judge_memory
from harness.verdict.wire import WireBytes, WireFacts, WirePace

MIB = 1 << 20


def event(kind: str, at: float, side: str = "source", **data: object) -> Event:
    return Event(0, 0.0, f"{side}.qmp", kind, {"data": data, "at": at})


HISTORY = [
    event("STOP", 90.0),
    event("MIGRATION", 100.0, status="setup"),
    event("MIGRATION", 100.1, status="active"),
    event("STOP", 103.0),
    event("MIGRATION", 103.1, status="completed"),
    event("STOP", 104.0, "destination"),
]


def note(folder: Path, number: int, *seen: tuple[float, int]) -> None:
    (folder / f"{number}.times").write_bytes(np.array(list(seen), TIMES).tobytes())


def test_what_had_come_when_the_guest_was_stopped(tmp_path: Path) -> None:
    note(tmp_path, 1, (100.2, 5), (102.9, 700), (103.2, 5000))
    note(tmp_path, 2, (100.3, 40), (102.0, 50))
    note(tmp_path, 3)
    assert wire_pace(tmp_path, HISTORY, 1000) == WirePace(750, 3.0, 1000)


@pytest.mark.parametrize(
    ("history", "limit"),
    [(HISTORY, None), (HISTORY[:3], 5), (HISTORY[3:], 5), (HISTORY[:2], 5), ([], 5)],
    ids=["no limit", "not stopped", "no setup", "stopped before", "nothing"],
)
def test_without_a_limit_or_a_stop_nothing_is_said(
    tmp_path: Path, history: list[Event], limit: int | None
) -> None:
    assert wire_pace(tmp_path, history, limit) is None


@pytest.mark.parametrize(
    ("sent", "seconds", "found"),
    [(100 * MIB, 1.0, False), (125 * MIB, 1.0, False), (140 * MIB, 1.0, True), (30 * MIB, 0.01, True)],
)
def test_a_limit_that_is_not_kept(sent: int, seconds: float, found: bool) -> None:
    facts = WireFacts(WireBytes(sent), 0, pace=WirePace(sent, seconds, 100 * MIB))
    rules = {one.rule for one in judge_memory(JudgeInput("off", ()), facts).judgement.findings}
    assert ("bandwidth-exceeded" in rules) == found


@pytest.mark.parametrize(
    ("after", "left", "found"),
    [(50, 10, False), (60, 10, True), (60, None, False), (33, 0, True), (70, 30, False)],
)
def test_a_guest_that_is_stopped_too_early(after: int, left: int | None, found: bool) -> None:
    pace = WirePace(100 * MIB, 10.0, 100 * MIB, left if left is None else left * MIB)
    facts = WireFacts(WireBytes(100 * MIB + after * MIB), 0, pace=pace)
    rules = {one.rule for one in judge_memory(JudgeInput("off", ()), facts).judgement.findings}
    assert ("pause-exceeded" in rules) == found


def test_a_tap_carries_both_ways_and_notes_what_came_when(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_server(("127.0.0.1", 0)) as near:
        tap = StreamTap("127.0.0.1", far.getsockname()[1], tmp_path)
        threading.Thread(target=tap.serve, args=(near,), daemon=True).start()
        sent = bytes(range(256)) * 20000
        with socket.create_connection(near.getsockname()) as source:
            threading.Thread(target=source.sendall, args=(sent,), daemon=True).start()
            there, _ = far.accept()
            with there:
                came = b""
                while len(came) < len(sent):
                    came += there.recv(1 << 20)
                there.sendall(b"answer")
                assert source.recv(100) == b"answer"
                source.shutdown(socket.SHUT_WR)
                # It has been written down before it is carried on.
                assert there.recv(100) == b""
    assert came == sent
    assert (tmp_path / "1.stream").read_bytes() == sent
    seen = np.frombuffer((tmp_path / "1.times").read_bytes(), TIMES)
    assert len(seen) > 0
    assert (np.diff(seen["bytes"].astype(np.int64)) > 0).all()
    assert 0 < seen["bytes"][-1] <= len(sent)
