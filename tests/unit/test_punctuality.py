# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an entry of a script came while its moment lasted."""

from __future__ import annotations

from harness.events import Event, EventStream
from harness.script.punctuality import Began, lateness


def said(*statuses: str, at: float = 100.0) -> EventStream:
    """The source's QEMU: a millisecond a status, and an event for each."""
    events = EventStream()
    for number, status in enumerate(statuses):
        events.emit("MIGRATION", source="source.qmp", data={"status": status}, at=at + number / 1000)
    return events


def cancel(moment: str, events: EventStream, which: int = 1) -> str | None:
    began = Began(moment, which, "cancel", events.now(), brings="cancelling")
    return lateness(began, events.history(), 0)


def test_a_cancel_in_its_moment() -> None:
    assert cancel("setup", said("setup", "cancelling", "cancelled")) is None
    assert cancel("active", said("setup", "active", "cancelling", "cancelled")) is None
    # In an early moment QEMU may give up without a word between.
    assert cancel("setup", said("setup", "failed")) is None
    assert cancel("setup", said("setup")) is None


def test_a_cancel_that_qemu_took_in_another_moment() -> None:
    late = cancel("setup", said("setup", "active", "pre-switchover", "cancelling", "cancelled"))
    assert late is not None
    # By QEMU's own clock, from the moment's end to the cancel.
    assert "'setup' had passed when its cancel came: QEMU was at 'active' 2.0 ms before" in late


def test_a_cancel_that_came_when_all_was_over() -> None:
    late = cancel("pre-switchover", said("active", "pre-switchover", "device", "completed"))
    assert late is not None
    assert "QEMU was at 'device'" in late


def events_around(began: str, *, before: tuple[str, ...], after: tuple[str, ...]) -> str | None:
    events = said(*before)
    begun = Began(began, 1, "bandwidth", events.now())
    for status in after:
        events.emit("MIGRATION", source="source.qmp", data={"status": status})
    return lateness(begun, events.history(), 0)


def test_another_action_counts_from_its_begin() -> None:
    assert events_around("active", before=("setup", "active"), after=("pre-switchover",)) is None
    late = events_around("active", before=("setup", "active", "pre-switchover"), after=("device",))
    assert late is not None
    assert "'active' had passed when its bandwidth came: QEMU was at 'pre-switchover'" in late


def passes(*numbers: int) -> EventStream:
    events = EventStream()
    for number in numbers:
        events.emit("MIGRATION_PASS", source="source.qmp", data={"pass": number})
    return events


def test_a_pass_lasts_until_the_next() -> None:
    assert cancel("pass", passes(1, 2), which=2) is None
    events = passes(1, 2, 3)
    late = lateness(Began("pass", 2, "bandwidth", events.now()), events.history(), 0)
    assert late is not None
    assert "moment pass 2 had passed" in late
    assert "QEMU was at pass 3" in late


def test_what_waits_is_never_late() -> None:
    events = said("setup", "active")
    for moment in ("start", "request", "answer", "applied", "before-walk", "resumed"):
        assert lateness(Began(moment, 1, "stop", events.now()), events.history(), 0) is None


def test_only_this_migration_s_source_counts() -> None:
    events = said("setup", "active", "completed")
    since = len(events.history())
    again: Event = events.emit("MIGRATION", source="source.qmp", data={"status": "setup"}, at=200.0)
    events.emit("MIGRATION", source="destination.qmp", data={"status": "active"}, at=200.1)
    began = Began("setup", 1, "cancel", again.t, brings="cancelling")
    assert lateness(began, events.history(), since) is None


def test_the_first_pass_begins_in_setup_and_goes_on() -> None:
    events = passes(1)
    for status in ("active", "pre-switchover"):
        assert lateness(Began("pass", 1, "quit", events.now()), events.history(), 0) is None
        events.emit("MIGRATION", source="source.qmp", data={"status": status})
    late = lateness(Began("pass", 1, "quit", events.now()), events.history(), 0)
    assert late is not None
    assert "QEMU was at 'pre-switchover'" in late
