# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the guest: what they say, and what is expected of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from harness.errors import GuestLost
from harness.events import Deadline
from harness.scenario.command import Command, CommandEnd, disappointments, run_in_guest


class Guest:
    """Has run a command that wrote ``output``."""

    def __init__(self, output: bytes, piece: int = 5, *, garbage: bool = False, **end: object) -> None:
        self.asked: list[tuple[str | int, ...]] = []
        self._output, self._piece, self._garbage, self._end = output, piece, garbage, end

    def call(self, verb: str, *words: str | int, deadline: Deadline) -> Mapping[str, object]:
        assert deadline.remaining() > 60
        self.asked.append((verb, *words))
        if verb == "run":
            end = {"status": 0, "signal": 0, "late": False}
            return {**end, **self._end, "call": 17, "bytes": len(self._output)}
        start = int(words[1])
        data = base64.b64encode(self._output[start : start + self._piece]).decode()
        return {"data": "?" if self._garbage else data}


def ended(**what: object) -> CommandEnd:
    fields: dict[str, object] = {
        "words": ("true",),
        "status": 0,
        "signal": None,
        "late": False,
        "output": "all is well",
        "written": 11,
        **what,
    }
    return CommandEnd(**fields)  # type: ignore[arg-type]


def test_the_output_is_read_in_pieces() -> None:
    guest = Guest(b"caf\xc3\xa9 and more \xff")
    end = run_in_guest(guest, Command(run=("echo", "")))
    assert end.output == "café and more \ufffd"
    assert (end.status, end.signal, end.late) == (0, None, False)
    # An empty word is a word, and travels as one.
    assert guest.asked[0] == ("run", 60, "x6563686f", "x")
    assert guest.asked[1:] == [("output", 17, start) for start in (0, 5, 10, 15)]


def test_a_guest_that_loses_its_output_ends_the_reading() -> None:
    class Forgetful(Guest):
        def call(self, verb: str, *words: str | int, deadline: Deadline) -> Mapping[str, object]:
            answer = super().call(verb, *words, deadline=deadline)
            return answer if verb == "run" else {"data": ""}

    assert run_in_guest(Forgetful(b"abc"), Command(run=("x",))).output == ""


def test_nonsense_is_the_guests() -> None:
    with pytest.raises(GuestLost, match="makes no sense"):
        run_in_guest(Guest(b"abc", garbage=True), Command(run=("x",)))


def test_a_signal_is_no_status() -> None:
    end = run_in_guest(Guest(b"", signal=9), Command(run=("x",)))
    assert (end.status, end.signal) == (None, 9)
    assert "signal 9" in end.how


@pytest.mark.parametrize(
    ("command", "end", "rule"),
    [
        ({}, {}, None),
        ({"output": "well"}, {}, None),
        ({"output": "ill"}, {}, "command-output"),
        ({}, {"status": 1}, "command-status"),
        ({"status": 1}, {"status": 1}, None),
        ({"status": None}, {"status": 1}, None),
        ({"status": None}, {"status": None, "signal": 6}, None),
        ({}, {"status": None, "signal": 6}, "command-status"),
        ({"status": None}, {"status": None, "signal": 9, "late": True}, "command-status"),
    ],
)
def test_what_is_expected(command: dict[str, object], end: dict[str, object], rule: str | None) -> None:
    found = disappointments(Command(run=("true",), **command), ended(**end))  # type: ignore[arg-type]
    assert [name for name, _ in found] == ([] if rule is None else [rule])
