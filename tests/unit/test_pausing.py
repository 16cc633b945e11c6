# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order two QEMUs stand still and go on, and when a guest is not let go on."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.errors import DeadlineExceeded
from harness.run import pausing
from harness.run.pausing import Standing, paused

LOG: list[str] = []


@dataclass
class FakeMonitor:
    """A QEMU by its answers; ``silent``: it answers nothing so often."""

    pid: int
    status: str = "running"
    migration: str = "active"
    silent: int = 0
    asked: list[str] = field(default_factory=list)

    def execute(self, command: str, *, seconds: float) -> Mapping[str, object]:
        assert seconds > 0
        if self.silent:
            self.silent -= 1
            raise DeadlineExceeded(command)
        if command == "query-status":
            return {"status": self.status, "running": self.status == "running"}
        if command == "query-migrate":
            return {"status": self.migration}
        LOG.append(f"{self.pid} {command}")
        self.status = {"stop": "paused", "cont": "running"}[command]
        return {}


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> None:
    LOG.clear()

    def kill(pid: int, number: int) -> None:
        LOG.append(f"{pid} {signal.Signals(number).name}")

    monkeypatch.setattr(pausing.os, "kill", kill)


def standing(side: str, monitor: FakeMonitor) -> Standing:
    return Standing(side, cast("Any", None), cast("Any", monitor))


def both(source: FakeMonitor, destination: FakeMonitor | None = None) -> list[Standing]:
    there = destination or FakeMonitor(2, "inmigrate", "active")
    return [standing("source", source), standing("destination", there)]


def test_processes_that_are_stopped() -> None:
    """The guest's clocks stand, and the migration does not end before both are stopped."""
    with paused(both(FakeMonitor(1)), lambda: False, stopped=True) as states:
        assert LOG == ["2 SIGSTOP", "1 stop", "1 SIGSTOP"]
        assert states["source"].startswith("its guest was paused, and its process is stopped")
        assert states["destination"] == "its process is stopped (SIGSTOP)"
    assert LOG[3:] == ["1 SIGCONT", "1 cont", "2 SIGCONT"]


def test_a_guest_that_stood_still_already_is_not_let_go_on() -> None:
    """By the device, or by the migration that is about to complete."""
    with paused(both(FakeMonitor(1, "paused")), lambda: False, stopped=True):
        pass
    assert LOG == ["2 SIGSTOP", "1 SIGSTOP", "1 SIGCONT", "2 SIGCONT"]


def test_a_guest_that_the_device_has_stopped_meanwhile_is_the_device_s() -> None:
    with paused(both(FakeMonitor(1)), lambda: True, stopped=True):
        pass
    assert "1 cont" not in LOG


@pytest.mark.parametrize("migration", ["device", "completed", "postcopy-active"])
def test_a_guest_that_has_left_meanwhile_does_not_run_twice(migration: str) -> None:
    source = FakeMonitor(1)
    with paused(both(source), lambda: False, stopped=True):
        source.migration = migration
    assert "1 cont" not in LOG


def test_a_source_that_waits_for_its_destination_is_asked_again() -> None:
    source = FakeMonitor(1)
    with paused(both(source), lambda: False, stopped=True):
        source.silent = 1
    assert LOG[-3:] == ["1 SIGCONT", "2 SIGCONT", "1 cont"]


def test_a_source_that_says_nothing_is_stopped_all_the_same() -> None:
    with paused(both(FakeMonitor(1, silent=1)), lambda: False, stopped=True):
        pass
    assert LOG == ["2 SIGSTOP", "1 SIGSTOP", "1 SIGCONT", "2 SIGCONT"]


def test_guests_are_paused_where_qemu_waits() -> None:
    there = FakeMonitor(2, "running", "completed")
    with paused(
        both(FakeMonitor(1, "postmigrate", "completed"), there), lambda: False, stopped=False
    ) as said:
        assert LOG == ["2 stop"]
        assert said["source"] == "its guest is 'postmigrate', its migration 'completed'"
        assert said["destination"].startswith("its guest is 'paused'")
    assert LOG == ["2 stop", "2 cont"]


def test_a_guest_that_somebody_has_let_go_on_is_left_alone() -> None:
    there = FakeMonitor(2)
    with paused([standing("destination", there)], lambda: False, stopped=False):
        there.status = "running"
    assert LOG == ["2 stop"]


def test_a_qemu_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(pausing.os, "kill", gone)
    source = FakeMonitor(1)
    with paused(both(source), lambda: False, stopped=True):
        source.silent = 10
    assert standing("source", source).state() == "it does not answer its monitor"
