# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload ``stream``: both ends on this machine, and what is found when one of them is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.guestview import stream_partner
from harness.guestview.report import Aftermath, Report
from harness.guestview.stream import StreamAccount, StreamReview, review
from harness.guestview.stream_partner import StreamPartner
from harness.memory import formula
from harness.memory.record import Block
from harness.scenario.workloads.stream import Stream
from harness.verdict.judge import BlockState, JudgeInput, judge
from tests.unit.test_workloads import compiled

HERE = "127.0.0.1"
WELL = StreamAccount(
    sent=1000,
    received=2000,
    first_wrong=None,
    error=None,
    after=500,
    ended=True,
    gap=1.25,
    datagrams=100,
    right=90,
    wrong=0,
    right_after=20,
    datagram_gap=1.5,
    waited=0.5,
)
GUEST = {"sent": 2000, "received": 1000, "wrong": 0, "first_wrong": 0, "error": 0, "good": 95, "bad": 0}


def reviewed(guest: dict[str, int] | None = None, **host: Any) -> StreamReview:
    return review(Report({**GUEST, **(guest or {})}, 0, 0), replace(WELL, **host))


def findings(found: StreamReview) -> Sequence[tuple[str, str]]:
    none = np.zeros(4, dtype=np.bool_)
    case = JudgeInput("off", (BlockState(Block("pc.ram", 4, ()), np.array([], np.int64), none, none),))
    judgement = judge(case, found)
    assert judgement.observed["stream-gap-ms"] == 1250
    assert judgement.observed["datagrams-lost"] == found.datagrams_lost
    return [(finding.rule, finding.text) for finding in judgement.findings]


def test_all_is_well() -> None:
    assert findings(reviewed()) == []
    assert reviewed().datagrams_lost == 10


@pytest.mark.parametrize(
    ("guest", "host", "words"),
    [
        ({}, {"error": "Connection reset by peer"}, "the host's end broke: Connection reset by peer"),
        ({"error": 104}, {}, "the guest's end broke with error 104"),
        ({}, {"first_wrong": 17}, "byte 17 from the guest is wrong"),
        ({"wrong": 3, "first_wrong": 9}, {}, "byte 9 to the guest is wrong"),
        ({}, {"after": 0, "waited": 30}, "no byte came within 30 s after the guest had moved"),
        (
            {},
            {"ended": False, "waited": 30},
            "it did not come to its end within 30 s after the guest had moved",
        ),
        (
            {"received": 999},
            {},
            "the guest sent 2000 bytes and received 999, the host received 2000 and sent 1000",
        ),
    ],
)
def test_a_connection_that_is_broken(guest: dict[str, int], host: dict[str, Any], words: str) -> None:
    assert findings(reviewed(guest, **host)) == [
        ("stream-broken", f"a TCP connection with the guest: {words}")
    ]


@pytest.mark.parametrize(
    ("guest", "host", "words"),
    [
        ({"bad": 2}, {}, "2 datagrams to the guest were wrong"),
        ({}, {"wrong": 3}, "3 datagrams from the guest were wrong"),
        ({}, {"right_after": 0, "waited": 30}, "none came back within 30 s after the guest had moved"),
    ],
)
def test_datagrams_that_are_wrong(guest: dict[str, int], host: dict[str, Any], words: str) -> None:
    assert findings(reviewed(guest, **host)) == [("datagrams-broken", f"datagrams with the guest: {words}")]


Ask = Callable[[str], Report]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.create_server((HERE, 0)) as free:
        number: int = free.getsockname()[1]
    monkeypatch.setattr(stream_partner, "PORT", number)
    return number


@pytest.fixture
def guest(tmp_path: Path, port: int) -> Iterator[Ask]:
    program = compiled(tmp_path, f"CPPFLAGS=-DPORT={port}")
    mine = Stream.model_validate({"keep": "64KiB"})
    with subprocess.Popen(
        [program, "load", *mine.load_words(7, 0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(line: str) -> Report:
            print(line, file=stdin, flush=True)
            return Report(json.loads(stdout.readline()), 0.0, 0.0)

        assert json.loads(stdout.readline())["bad"] == 0
        yield ask
        stdin.close()


def test_both_ends_agree(guest: Ask) -> None:
    mine = Stream.model_validate({"rate": "8MiB"})
    before = guest("report")
    with mine.partner(7, HERE) as partner:
        partner.finish(20)
        guest("stop")
        after = guest("report")
        account = partner.account()
    [found] = mine.facts(Aftermath(7, before, after, (), "tcg", None, account))
    assert isinstance(found, StreamReview)
    assert (found.broken, found.datagrams_broken) == ((), ())
    assert found.bytes > 1 << 16


def test_ends_that_do_not_agree(guest: Ask) -> None:
    """The seed of one is another's: every byte is wrong, on both sides."""
    before = guest("report")
    with StreamPartner(HERE, 8, 8 << 20) as partner:
        partner.finish(2)
        after = guest("report")
        account = partner.account()
    [found] = Stream().facts(Aftermath(7, before, after, (), "tcg", None, account))
    assert isinstance(found, StreamReview)
    # The first byte of one may well be the other's.
    assert [text.split(maxsplit=2)[2] for text in found.broken] == [
        "from the guest is wrong",
        "to the guest is wrong",
    ]
    assert len(found.datagrams_broken) == 3


def test_a_guest_that_falls_silent(port: int) -> None:
    """It has taken the connection, and says nothing more."""
    with socket.create_server((HERE, port)), StreamPartner(HERE, 7, 1 << 20) as partner:
        partner.finish(0.3)
        account = partner.account()
    assert (account.after, account.ended, account.right_after) == (0, False, 0)
    assert account.sent > 0


def test_a_guest_that_resets_the_connection(port: int) -> None:
    with socket.create_server((HERE, port)) as server, StreamPartner(HERE, 7, 1 << 20) as partner:
        taken, _ = server.accept()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        taken.close()
        partner.finish(1)
        account = partner.account()
    assert account.error in ("Connection reset by peer", "Broken pipe")


@pytest.mark.usefixtures("port")
def test_a_guest_that_is_not_there() -> None:
    with pytest.raises(MachineryError, match="cannot be reached"), StreamPartner(HERE, 7, 1 << 20):
        pass


def test_a_page_that_goes_on_begins_as_a_page() -> None:
    assert (formula.endless(7, 3, 5, 0, formula.WORDS_PER_PAGE) == formula.page_words(7, 3, 5)).all()
    assert (formula.endless(7, 3, 5, 100, 20) == formula.page_words(7, 3, 5)[100:120]).all()
