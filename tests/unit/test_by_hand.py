# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a person may have a run stand still, and what is said then."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, InputError
from harness.events import Deadline, time_stands_still, working_time
from harness.hosts.outside import command_pid, inner_number, outside_pid
from harness.plan.by_hand import PausePoint, by_hand, demand_reachable
from harness.report.by_hand import StoppedByHand, stops_in_words
from harness.run.attach import LabAtHand, QemuAtHand, lines_of
from harness.run.user_word import await_word, what_goes_on
from harness.scenario.load import load_scenario
from harness.scenario.moments import MOMENTS


def test_words_of_the_command_line() -> None:
    hand = by_hand("failure", ["pass:2", "answer", "applied:10"])
    assert hand.pause_at == (PausePoint("pass", 2), PausePoint("answer"), PausePoint("applied", 10))
    assert [str(point) for point in hand.pause_at] == ["pass:2", "answer", "applied:10"]
    assert hand.device_holds == ("answer", "applied")
    assert hand.wanted
    assert not by_hand(None, []).wanted
    for moment in MOMENTS:
        assert by_hand(None, [moment]).pause_at == (PausePoint(moment),)


@pytest.mark.parametrize(
    ("keep", "points", "words"),
    [
        ("sometimes", [], "--keep sometimes: expected one of never, failure, always"),
        (None, ["passs"], "there is no moment 'passs'"),
        (None, ["pass:"], "expected a number from 1"),
        (None, ["pass:0"], "expected a number from 1"),
        (None, ["pass:-1"], "expected a number from 1"),
        (None, ["pass:²"], "expected a number from 1"),
        (None, ["pass:9999999999"], "expected a number from 1"),
        (None, [""], "there is no moment ''"),
    ],
)
def test_words_that_are_none(keep: str | None, points: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        by_hand(keep, points)


def test_moments_to_which_a_scenario_does_not_come() -> None:
    for word, arm, why in (
        ("request", "off", "asked for nothing in arm off"),
        ("mid-walk", "info", "no entry of its script waits for it"),
        ("postcopy-active", "info", "not switched to postcopy"),
    ):
        with pytest.raises(InputError, match=why):
            demand_reachable(by_hand(None, [word]), load_scenario("churn", [f"arm={arm}"]))
    demand_reachable(by_hand(None, ["request", "pass:3"]), load_scenario("churn", ["arm=info"]))
    demand_reachable(by_hand(None, ["postcopy-active"]), load_scenario("postcopy", []))


def lab(*qemus: QemuAtHand, own_users: bool = False, keys: Path | None = None) -> LabAtHand:
    daemons = [("source", Path("/run/freepage/lab/source/libvirt/libvirt.sock"))]
    return LabAtHand(9, own_users, qemus, daemons, "system", "guest", keys, "10.0.0.1", None)


def test_the_lines() -> None:
    stands = QemuAtHand("source", 12, Path("/a b/qemu"), "its guest is 'paused'", Path("/run/q"))
    text = "\n".join(lines_of(lab(stands, keys=Path("/run/ssh"))))
    assert "source: QEMU is process 12; its guest is 'paused'" in text
    assert "gdb -iex 'set sysroot /' '/a b/qemu' -p 12" in text
    assert "UNIX-CONNECT:/proc/9/root/run/q/hmp.sock" in text
    assert "UNIX-CONNECT:/proc/9/root/run/q/qmp.sock" in text
    assert "qemu+unix:///system?socket=/proc/9/root/run/freepage/lab/source/libvirt/libvirt.sock" in text
    assert "nsenter -t 9 -m -n ssh -F /dev/null -i /run/ssh/client" in text
    assert "kill -CONT" not in text


def test_the_lines_of_processes_that_are_stopped_in_an_ordinary_user_s_lab() -> None:
    stopped = QemuAtHand("destination", 13, Path("/qemu"), "stopped", Path("/run/q"), stopped=True)
    text = "\n".join(lines_of(lab(stopped, own_users=True, keys=Path("/run/ssh"))))
    assert "kill -CONT 13" in text
    assert "nsenter -t 9 -U --preserve-credentials -m -n ssh" in text
    assert "ssh" not in "\n".join(lines_of(lab(stopped)))
    # No QEMU is left: there is no guest either.
    assert "ssh" not in "\n".join(lines_of(lab(keys=Path("/run/ssh"))))


def test_the_lines_of_a_machine_without_socat() -> None:
    stands = QemuAtHand("source", 12, Path("/qemu"), "its guest is 'paused'", Path("/run/q"))
    text = "\n".join(lines_of(replace(lab(stands), socat=False, qmp_shell=Path("/bin/qmp-shell"))))
    assert "  HMP, or   /bin/qmp-shell -H /proc/9/root/run/q/qmp.sock" in text
    assert "  QMP       /bin/qmp-shell /proc/9/root/run/q/qmp.sock" in text
    assert "socat" not in text


def test_what_a_process_is_called_inside() -> None:
    assert inner_number("Name:\tqemu\nNSpid:\t4321\t17\t3\n") == 3
    assert inner_number("Name:\tqemu\n") is None
    # Outside of a lab nothing was remembered.
    assert outside_pid(os.getpid()) == command_pid() == os.getpid()


def test_no_deadline_comes_nearer_while_a_person_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("harness.events.time.monotonic", lambda: now[0])
    deadline = Deadline(5, "something")
    before = working_time()
    with time_stands_still():
        now[0] += 3600
        assert working_time() == before
        assert deadline.remaining() == 5
    assert working_time() == before
    now[0] += 4
    assert deadline.remaining() == pytest.approx(1)
    now[0] += 2
    with pytest.raises(DeadlineExceeded):
        deadline.check()


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """What is written to it is the standard input."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("harness.run.user_word._STDIN", theirs.fileno())
    monkeypatch.setattr("tests.unit.test_by_hand._kept", theirs, raising=False)
    return ours


def test_a_line_for_each_time(stdin: socket.socket) -> None:
    stdin.sendall(b"one\n\n")
    assert await_word() == "a line"
    assert await_word() == "a line"
    stdin.close()
    assert await_word() == "the end of the input"
    assert await_word() == "the end of the input"


def test_a_signal_ends_the_waiting_alone(stdin: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr("harness.run.user_word.os.read", interrupted)
        assert await_word() == "a signal"
    stdin.sendall(b"\n")
    assert await_word() == "a line"


def test_what_a_person_has_to_do(stdin: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stdin
    assert "with a line of the standard input, with its end, or with: kill 77" in what_goes_on(77)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("harness.run.user_word._STDIN", nothing.fileno())
        assert "is at its end" in what_goes_on(77)
    controller, terminal = os.openpty()
    monkeypatch.setattr("harness.run.user_word._STDIN", terminal)
    assert "press Enter" in what_goes_on(77)
    os.write(controller, b"\n")
    assert await_word() == "Enter"
    for one in (controller, terminal):
        os.close(one)


def test_what_the_verdict_says() -> None:
    assert stops_in_words([]) == ""
    stops = [StoppedByHand(at="pass:2", move=1, seconds=12.4), StoppedByHand(at="end", move=1, seconds=1)]
    assert stops_in_words(stops) == "; paused by hand: pass:2 (12 s), end (1 s)"
