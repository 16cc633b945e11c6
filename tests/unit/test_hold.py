# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of a hold: from the follower to the keeper, the script and ``cont``, by plain calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import libvirt
import pytest

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.memory.image import RamImage
from harness.migration.follow import Follower
from harness.migration.hold import HoldKeeper
from harness.migration.inbox import Inbox, JobEnd
from harness.migration.qmp import Monitor, QmpEvent
from harness.scenario.script import Entry
from harness.script.runner import ScriptRunner
from tests.unit.fake_stage import FakeStage

MOVED = cast(libvirt.virDomain, object())


class Scene:
    """Writes down what is done, in order; the monitor and the job of a migration."""

    side = "source"

    def __init__(self, *entries: dict[str, object], status: str = "active") -> None:
        self.status = status
        self.inbox = Inbox()
        script = tuple(Entry.model_validate(entry) for entry in entries)
        stage = FakeStage()
        # Both write into one list: what is done when is the question.
        self.did = stage.did
        runner = ScriptRunner(script, stage, EventStream(), self.inbox.put)
        image = RamImage.from_bytes(bytes(4096), "pc.ram")
        self.keeper = HoldKeeper(cast(Monitor, self), {"pc.ram": image}, EventStream(), script=runner)
        self.follower = Course(self.inbox, self.keeper, runner)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        del arguments
        self.did.append(command)
        return {"status": self.status} if command == "query-migrate" else {}

    def event(self, event: QmpEvent) -> None:
        self.did.append(f"job told of {event.data['status']}")

    def release(self) -> None:
        self.did.append("released")

    def gone(self) -> None:
        self.did.append("gone")

    def cancel(self, inbox: Inbox) -> None:
        del inbox
        self.did.append("cancelled")

    def follow(self, *events: tuple[str, dict[str, object]]) -> list[str]:
        for name, data in events:
            self.inbox.put(QmpEvent("source", name, data))
        self.inbox.put(JobEnd(MOVED, None))
        assert self.follower.follow(self, Deadline(5, "the migration")) is MOVED
        # Nothing of it came back by the inbox.
        assert list(self.inbox.rest()) == []
        return self.did


class Course(Follower):
    def begun(self) -> None: ...

    def stopped(self) -> None: ...

    def completed(self) -> None: ...

    def lost(self, side: str) -> GuestLost:
        return GuestLost(side)


HOLD = ("FREE_PAGE_INFO_HOLD", {"id": 5, "point": "request"})


def test_a_hold_without_a_script_ends_at_once() -> None:
    scene = Scene()
    assert scene.follow(HOLD) == ["query-migrate", "cont"]
    assert [(hold.request, hold.point) for hold in scene.keeper.holds] == [(5, "request")]


def test_what_the_script_has_for_a_hold_is_done_in_it() -> None:
    scene = Scene({"at": "request", "do": [{"action": "stop"}]})
    assert scene.follow(HOLD) == ["stop", "query-migrate", "cont"]


def test_the_script_hears_of_passes_and_statuses_and_the_job_after_it() -> None:
    scene = Scene({"at": "active", "do": [{"action": "stop"}]}, {"at": "pass", "do": [{"action": "stop"}]})
    events: list[tuple[str, dict[str, object]]] = [
        ("MIGRATION", {"status": "active"}),
        ("MIGRATION_PASS", {"pass": 2}),
        ("MIGRATION", {"status": "completed"}),
    ]
    assert scene.follow(*events) == [
        "stop",
        "job told of active",
        "stop",
        "released",
        "job told of completed",
    ]


def test_a_guest_that_has_left_is_not_continued() -> None:
    with pytest.raises(MachineryError, match="did not hold"):
        Scene(status="completed").follow(HOLD)
