# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that dies is noticed at once: by its console, by QEMU's events, by its processors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.errors import GuestLost
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.guest.death import DeathWatch, halted_for_good

#: Far more than any of this takes: who waits for it has not noticed.
NEVER = 600.0


@pytest.fixture
def events() -> EventStream:
    return EventStream()


@pytest.fixture
def control(events: EventStream) -> Iterator[GuestControl]:
    ours, theirs = socket.socketpair()
    with GuestControl(events) as control:
        control.attach("destination", ours)
        theirs.sendall(b'ready {"driver": "none"}\n')
        control.wait_ready(Deadline(10, "the ready word"))
        yield control
    theirs.close()


def dies_of(events: EventStream, control: GuestControl, kind: str, source: str, **data: object) -> str:
    """A guest that is asked, and never answers; what its end is called when this event comes."""
    asked = threading.Event()

    def ask() -> None:
        with DeathWatch(events, control, host="destination", side="destination"):
            asked.set()
            control.call("verify", deadline=Deadline(NEVER, "an answer"))

    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(ask)
        asked.wait(10)
        events.emit(kind, source=source, **data)
        with pytest.raises(GuestLost) as caught:
            lost.result(10)
    return caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "[   12.3] BUG: unable to handle page fault for address: ffffc90000c0ffee",
        "[   12.3] Oops: 0002 [#1] PREEMPT SMP PTI",
        "[   12.3] kernel BUG at mm/slub.c:434!",
        "[   12.3] general protection fault, probably for non-canonical address: 0000 [#1]",
        "[   12.3] Internal error: Oops: 96000004 [#1] SMP",
    ],
)
def test_an_oops(events: EventStream, control: GuestControl, line: str) -> None:
    words = dies_of(events, control, "console", "destination.console", text=line)
    assert words.startswith(f"its kernel said: {line} (")


def test_a_panic(events: EventStream, control: GuestControl) -> None:
    assert "panicked: why" in dies_of(events, control, "guest-panic", "destination.console", text="why")


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("RESET", {"guest": True, "reason": "guest-reset"}, "reset itself"),
        ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, "shut itself down"),
        ("GUEST_PANICKED", {"action": "pause"}, "it has panicked"),
        ("WATCHDOG", {"action": "reset"}, "watchdog"),
    ],
)
def test_what_qemu_says(
    events: EventStream, control: GuestControl, kind: str, data: dict[str, object], words: str
) -> None:
    assert words in dies_of(events, control, kind, "destination.qmp", data=data)


def test_a_guest_that_boots_again(events: EventStream, control: GuestControl) -> None:
    assert "booted again" in dies_of(events, control, "guest-ready", "destination.control")


def test_what_is_no_death(events: EventStream, control: GuestControl) -> None:
    with DeathWatch(events, control, host="destination", side="destination") as watch:
        # Of another QEMU, of a user's doing, and no more than a warning.
        events.emit("RESET", source="source.qmp", data={"guest": True})
        events.emit("RESET", source="destination.qmp", data={"guest": False})
        events.emit("WATCHDOG", source="destination.qmp", data={"action": "none"})
        events.emit("console", source="destination.console", text="WARNING: CPU: 0 PID: 1 at kernel/x.c")
        events.emit("console", source="source.console", text="Oops: 0000 [#1]")
        assert watch.words is None
        # A script that has it boot again.
        control.forget_ready()
        events.emit("RESET", source="destination.qmp", data={"guest": True})
        assert watch.words is None


def test_a_watch_that_is_over_leaves_nothing_behind(events: EventStream, control: GuestControl) -> None:
    with DeathWatch(events, control, host="destination", side="destination") as watch:
        events.emit("console", source="destination.console", text="Oops: 0000 [#1]")
    assert watch.words is not None
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(control.call, "ping", deadline=Deadline(0.2, "an answer"))
        with pytest.raises(GuestLost, match="not within"):
            call.result(10)


def test_silence_is_asked_for_before_a_call_is_repeated(events: EventStream, control: GuestControl) -> None:
    asked: list[int] = []

    def silence() -> str | None:
        asked.append(1)
        # The channel is not locked meanwhile.
        control.rebind("destination")
        return "it is silent"

    with (
        DeathWatch(events, control, host="destination", side="destination", silence=silence),
        pytest.raises(GuestLost, match="it is silent"),
    ):
        control.call("ping", deadline=Deadline(NEVER, "an answer"))
    assert asked == [1]


CPU = "CPU#{}\nRAX=0 RBX=0\nRIP=ffffffff8100 RFL={:08x} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={}\n"


@pytest.mark.parametrize(
    ("cpus", "dead"),
    [
        ([(0x46, 1)], True),
        ([(0x246, 1)], False),  # waits for an interrupt
        ([(0x46, 0)], False),  # runs
        ([(0x46, 1), (0x246, 1)], False),
        ([(0x46, 1), (0x2, 1)], True),
    ],
)
def test_processors_that_nothing_wakes(cpus: list[tuple[int, int]], dead: bool) -> None:
    text = "".join(CPU.format(number, flags, halted) for number, (flags, halted) in enumerate(cpus))
    assert halted_for_good(text) is dead


def test_of_other_processors_nothing_is_known() -> None:
    assert not halted_for_good("CPU#0\n PC=ffff800010b5a9d8 X00=0 PSTATE=604000c5 -ZC- NS EL1h\n")
