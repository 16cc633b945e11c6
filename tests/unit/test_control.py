# SPDX-License-Identifier: GPL-2.0-or-later
"""The control channel, against a guest played here, word by word."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import LONGEST_LINE, GuestControl

PAGES = {
    "kind": "verify",
    "pages": 3,
    "bad": 0,
    "checksum": "00000000000000ff",
    "first_bad": None,
    "seconds": 0.5,
}

Connect = Callable[[str], "Played"]


def soon(what: str = "the test", seconds: float = 10) -> Deadline:
    return Deadline(seconds, what)


class Played:
    """The guest's end of one connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.settimeout(10)
        self._lines = end.makefile("rb")

    def say(self, text: str | bytes) -> None:
        self.end.sendall(text if isinstance(text, bytes) else text.encode() + b"\n")

    def hear(self) -> tuple[int, str]:
        """The next call: number and words."""
        line = self._lines.readline()
        assert line.startswith(b"\x15"), line
        number, words = line[1:].decode().rstrip("\n").split(" ", 1)
        return int(number), words

    def close(self) -> None:
        self._lines.close()
        self.end.close()


@pytest.fixture
def events() -> EventStream:
    return EventStream()


@pytest.fixture
def control(events: EventStream) -> Iterator[GuestControl]:
    with GuestControl(events, last_lines=lambda: ["the console's last line"]) as control:
        yield control


@pytest.fixture
def connect(control: GuestControl) -> Iterator[Connect]:
    played: list[Played] = []

    def connect(host: str) -> Played:
        ours, theirs = socket.socketpair()
        control.attach(host, ours)
        played.append(Played(theirs))
        return played[-1]

    yield connect
    for one in played:
        one.close()


def in_background(call: Callable[[], object]) -> Future[object]:
    """Run a call that waits; its result, later."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_ready_word(control: GuestControl, connect: Connect, events: EventStream) -> None:
    connect("source").say('ready {"protocol":1,"driver":"info","release":"6.1","mem_total":5}')
    assert control.wait_ready(soon())["driver"] == "info"
    assert any(event.kind == "guest-ready" and event.source == "source.control" for event in events.history())


def test_ready_word_over_a_listener(control: GuestControl, tmp_path: Path) -> None:
    control.listen("source", tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as qemu:
        qemu.connect(str(tmp_path / "control"))
        qemu.sendall(b'ready {"init":"nothing"}\r\n')
        assert control.wait_ready(soon())["init"] == "nothing"


def test_call_and_answer(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("load", "freed", 7, 4096, deadline=soon()))
    number, words = guest.hear()
    assert words == "load freed 7 4096"
    guest.say(f"{number} ok {json.dumps(PAGES | {'kind': 'freed', 'freed': 1})}")
    answer = call.result(10)
    assert isinstance(answer, dict) and (answer["pages"], answer["freed"], answer["nonzero"]) == (3, 1, 0)


def test_numbers_only_grow(control: GuestControl, connect: Connect) -> None:
    guest, heard = connect("source"), []
    for _ in range(3):
        call = in_background(lambda: control.call("unload", deadline=soon()))
        heard.append(guest.hear()[0])
        guest.say(f"{heard[-1]} ok {{}}")
        call.result(10)
    assert heard == sorted(set(heard))


def test_refusal_carries_the_guests_words(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("verify", deadline=soon()))
    guest.say(f"{guest.hear()[0]} error nothing is loaded")
    with pytest.raises(MachineryError, match="cannot verify: nothing is loaded"):
        call.result(10)


def test_two_calls_are_not_mixed_up(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    slow = in_background(lambda: control.call("verify", deadline=soon()))
    first = guest.hear()[0]
    quick = in_background(lambda: control.call("unload", deadline=soon()))
    guest.say(f"{guest.hear()[0]} ok {{}}")
    assert quick.result(10) == {}
    assert not slow.done()
    guest.say(f"{first} ok {json.dumps(PAGES)}")
    slow.result(10)


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "not json",
        json.dumps(PAGES | {"pages": -1}),
        json.dumps(PAGES | {"pages": "3"}),
        json.dumps(PAGES | {"bad": 2**64}),
        json.dumps(PAGES | {"checksum": "xyz"}),
        json.dumps(PAGES | {"surprise": 1}),
        json.dumps(PAGES | {"first_bad": {"page": 1}}),
    ],
)
def test_answer_that_makes_no_sense(control: GuestControl, connect: Connect, answer: str) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("verify", deadline=soon()))
    guest.say(f"{guest.hear()[0]} ok {answer}")
    with pytest.raises(GuestLost, match="makes no sense") as caught:
        call.result(10)
    assert caught.value.last_lines == ("the console's last line",)


def test_a_verb_of_ones_own_may_say_plain_things(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    said: dict[str, object] = {"count": 3, "done": True, "frames": [1, 2], "state": "cold", "none": None}
    call = in_background(lambda: control.call("drop-caches", deadline=soon()))
    guest.say(f"{guest.hear()[0]} ok {json.dumps(said)}")
    assert call.result(10) == said


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], -1, 2**64, 1.5, "x" * 513])
def test_but_no_others(control: GuestControl, connect: Connect, value: object) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("drop-caches", deadline=soon()))
    guest.say(f"{guest.hear()[0]} ok {json.dumps({'count': value})}")
    with pytest.raises(GuestLost, match="makes no sense"):
        call.result(10)


def test_noise_does_not_disturb(control: GuestControl, connect: Connect, events: EventStream) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("unload", deadline=soon()))
    number = guest.hear()[0]
    guest.say(b"\n\r\n\xff\xfe\n0 ok {}\nnonsense\n! the workload ended by signal 9\nready [1]\n")
    guest.say(b"x" * (10 * LONGEST_LINE))
    guest.say(f"\n999 ok {{}}\n{number} ok {{}}")
    assert call.result(10) == {}
    kinds = [event.kind for event in events.history()]
    # Not ASCII, number 0, nonsense, a ready word that is none, a line without end.
    assert kinds.count("guest-garbage") == 5
    assert kinds.count("guest-answer-late") == 1
    says = [event.data["text"] for event in events.history() if event.kind == "guest-says"]
    assert says == ["the workload ended by signal 9"]


def test_endless_line_is_not_kept(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    for _ in range(200):
        guest.say(b"y" * 65536)
    guest.say("")
    guest.say('ready {"init":"nothing"}')
    control.wait_ready(soon())
    assert len(control._connections[0].partial) <= LONGEST_LINE + 1


def test_call_follows_the_guest(control: GuestControl, connect: Connect) -> None:
    source, destination = connect("source"), connect("destination")
    call = in_background(lambda: control.call("unload", deadline=soon()))
    number = source.hear()[0]
    control.rebind("destination")
    assert destination.hear() == (number, "unload")
    destination.say(f"{number} ok {{}}")
    assert call.result(10) == {}
    # And the next one goes there in the first place.
    call = in_background(lambda: control.call("unload", deadline=soon()))
    destination.say(f"{destination.hear()[0]} ok {{}}")
    call.result(10)


def test_a_muted_host_hears_nothing_before_the_guest_runs_there(
    control: GuestControl, connect: Connect
) -> None:
    source = connect("source")
    control.mute("destination")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(control.call, "ping", deadline=soon())
        number, _ = source.hear()
        destination = connect("destination")
        # The source ends: the other connection is all that is left, and is not used yet.
        source.close()
        destination.end.setblocking(False)
        # Longer than a call waits until it is repeated.
        with pytest.raises(GuestLost, match="not within"):
            control.call("stats", deadline=soon("the other call", 2.5))
        with pytest.raises(BlockingIOError):
            destination.end.recv(1)
        destination.end.settimeout(10)
        control.rebind("destination")
        assert destination.hear() == (number, "ping")
        destination.say(f"{number} ok {{}}")
        call.result(10)


def test_call_follows_when_the_source_ends(control: GuestControl, connect: Connect) -> None:
    source, destination = connect("source"), connect("destination")
    call = in_background(lambda: control.call("unload", deadline=soon()))
    number = source.hear()[0]
    source.say(b"17290 o")  # cut off by the switch-over
    source.close()
    assert destination.hear()[0] == number
    destination.say(f"{number} ok {{}}")
    assert call.result(10) == {}


def test_call_is_sent_again_and_everywhere(
    control: GuestControl, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.guest.control._AGAIN_FIRST", 0.05)
    source, destination = connect("source"), connect("destination")
    call = in_background(lambda: control.call("unload", deadline=soon()))
    number = source.hear()[0]
    assert destination.hear()[0] == number == source.hear()[0]
    destination.say(f"{number} ok {{}}")
    assert call.result(10) == {}


def test_guest_that_ends(control: GuestControl, connect: Connect) -> None:
    guest = connect("source")
    call = in_background(lambda: control.call("verify", deadline=soon()))
    guest.hear()
    guest.close()
    with pytest.raises(GuestLost, match="has ended"):
        call.result(10)
    with pytest.raises(GuestLost, match="has ended"):
        control.wait_ready(soon())


def test_guest_that_says_nothing(control: GuestControl, connect: Connect) -> None:
    connect("source")
    with pytest.raises(GuestLost, match="boot: not within"):
        control.wait_ready(soon("boot", 0.05))
    with pytest.raises(GuestLost, match="verify: not within"):
        control.call("verify", deadline=soon("verify", 0.05))


@pytest.mark.parametrize("words", [("ver ify",), ("load", "a\nb"), ("load", ""), ("load", "\u00e9")])
def test_words_that_would_break_the_line(control: GuestControl, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="printable"):
        control.call(*words, deadline=soon())


def test_line_that_is_too_long(control: GuestControl) -> None:
    with pytest.raises(ValueError, match="longer"):
        control.call("load", "x" * 5000, deadline=soon())
