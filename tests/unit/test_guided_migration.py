# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that a test leads step by step, without any guest: the two threads meet where they should."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import GuestLost
from harness.testing import migration as module
from harness.testing.migration import GuidedMigration


class Live:
    """In place of a live migration: comes to some moments, and to an end."""

    moments: tuple[str, ...] = ("start", "request", "pass", "request", "answer")
    error: BaseException | None = None

    def __init__(self, *_: object, on_moment: Callable[[str], None]) -> None:
        self._on_moment = on_moment
        self.said: list[str] = []
        self.commands: list[str] = []

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.said.append("closed")

    def run(self, *_: object) -> str:
        for moment in self.moments:
            self._on_moment(moment)
            self.said.append(moment)
        if self.error is not None:
            raise self.error
        return "the end"

    def monitor(self, side: str) -> Any:
        return SimpleNamespace(execute=lambda command: self.commands.append(f"{side}: {command}"))


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> GuidedMigration:
    monkeypatch.setattr(module, "LiveMigration", Live)
    scenario = SimpleNamespace(scenario=SimpleNamespace(migration=None))
    rebound: list[str] = []
    guest = SimpleNamespace(control=SimpleNamespace(rebind=rebound.append))
    ready: Any = SimpleNamespace(plan=SimpleNamespace(resolved=scenario), guest=guest, rebound=rebound)
    hosts: Any = (SimpleNamespace(name="source"), SimpleNamespace(name="destination"))
    nothing: Any = None
    return GuidedMigration(ready, hosts, nothing, nothing, nothing, lambda _: None)


def live_of(guided: GuidedMigration) -> Live:
    found: Any = guided._live
    assert isinstance(found, Live)
    return found


def test_it_waits_at_what_was_asked_for_and_nowhere_else(guided: GuidedMigration) -> None:
    live = live_of(guided)
    with guided:
        guided.begin(hold=["request"])
        with guided.held("request"):
            assert live.said == ["start"]
        with guided.held("request"):
            assert live.said == ["start", "request", "pass"]
        assert guided.switch_over() == "the end"  # type: ignore[comparison-overlap]
        assert guided.switch_over() == "the end"  # type: ignore[comparison-overlap]
    assert live.said == [*Live.moments, "closed"]
    assert live.commands == []


def test_moments_that_are_not_waited_for_are_passed(guided: GuidedMigration) -> None:
    with guided:
        guided.begin(hold=["request", "answer"])
        with guided.held("answer"):
            assert live_of(guided).said == ["start", "request", "pass", "request"]
        guided.switch_over()


def test_a_moment_that_does_not_come(guided: GuidedMigration) -> None:
    with guided:
        guided.begin(hold=["applied"])
        with pytest.raises(AssertionError, match="ended before it came to 'applied'"), guided.held("applied"):
            pass


def test_what_ends_it_is_raised_wherever_the_test_is(
    guided: GuidedMigration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Live, "error", GuestLost("gone"))
    with guided:
        guided.begin(hold=["applied"])
        with pytest.raises(GuestLost, match="gone"), guided.held("applied"):
            pass
        with pytest.raises(GuestLost, match="gone"):
            guided.switch_over()


def test_one_that_is_left_is_cancelled(guided: GuidedMigration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Live, "error", GuestLost("cancelled"))
    with guided:
        guided.begin(hold=["request"])
        with guided.held("request"):
            pass
    assert live_of(guided).commands == ["source: migrate_cancel"]
    assert live_of(guided).said[-1] == "closed"
    assert not guided.running
    ready: Any = guided._ready
    assert ready.rebound == ["source"]
