# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that suspends itself to its memory: what is waited for, and what is wrong when it goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.run.suspending import Suspension, wake_up
from harness.scenario.load import load_scenario

if TYPE_CHECKING:
    from harness.guest.control import GuestControl
    from harness.migration.qmp import Monitor


class Guest:
    """It answers once it is let."""

    def __init__(self, events: EventStream, status: int, *, suspends: bool) -> None:
        self.events, self.status, self.suspends = events, status, suspends
        self.awake = threading.Event()

    def mute(self, host: str) -> None:
        assert host == "here"

    def call(self, verb: str, *_: object, deadline: object) -> dict[str, object]:
        assert (verb, deadline is not None) == ("run", True)
        if self.suspends:
            self.events.emit("SUSPEND", source="source.qmp", data={})
            self.awake.wait(10)
        return {"call": 1, "bytes": 0, "status": self.status, "signal": 0, "late": False}


class Qemu:
    def __init__(self, status: str) -> None:
        self.status, self.asked = status, list[str]()

    def execute(self, command: str) -> object:
        self.asked.append(command)
        return {"status": self.status}


def test_it_is_suspended_when_qemu_says_so_and_answers_later() -> None:
    events = EventStream()
    events.emit("SUSPEND", source="source.qmp", data={})  # of an earlier migration
    guest = Guest(events, 0, suspends=True)
    Suspension(cast("GuestControl", guest), events).begin("source", "here")
    assert "suspend-over" not in [event.kind for event in events.history()]
    guest.awake.set()


def test_a_kernel_that_does_not_suspend_itself_is_told() -> None:
    events = EventStream()
    guest = Guest(events, 1, suspends=False)
    with pytest.raises(MachineryError, match="does not suspend itself: its kernel's answer is 1"):
        Suspension(cast("GuestControl", guest), events).begin("source", "here")


@pytest.mark.parametrize(("status", "lost"), [("suspended", False), ("running", True), ("paused", True)])
def test_one_that_is_not_suspended_any_more_is_a_finding(status: str, lost: bool) -> None:
    qemu = Qemu(status)
    finding = wake_up(cast("Monitor", qemu), EventStream(), "destination")
    assert (finding is not None) == lost
    assert ("system_wakeup" in qemu.asked) == (not lost)
    if finding is not None:
        assert finding.rule == "suspend-lost"
        assert f"on the destination QEMU says that it is '{status}'" in finding.text


def test_its_clocks_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nworkload: {kind: clocks}\nmoves: [{guest: suspended}]\n")
    with pytest.raises(InputError, match="guest: does not go with the workload clocks"):
        load_scenario(str(path))
