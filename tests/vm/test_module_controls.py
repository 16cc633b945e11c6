# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's controls for tests: holds that can be waited for, and ways to go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.testing.agent_guest import ModuleGuest, Setup
from harness.toolchain import Kernel, QemuBinary, Toolchain

POINTS = ("before-walk", "mid-walk", "after-walk")


@pytest.fixture(scope="module")
def guest(toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel, results: Path) -> Iterator[ModuleGuest]:
    folder = results / f"module-controls-{kernel.release}"
    folder.mkdir()
    with ModuleGuest.boot(Setup(toolchain, qemu, kernel), folder) as guest:
        yield guest
        assert not guest.reports()


@pytest.fixture(autouse=True)
def as_before(guest: ModuleGuest) -> Iterator[None]:
    yield
    guest.call("behave")
    guest.call("unhold")


@pytest.mark.parametrize("point", POINTS)
def test_a_walk_stands_until_it_is_released(guest: ModuleGuest, point: str) -> None:
    before = guest.stats()
    guest.call("hold", point)
    with guest.migration():
        there = guest.call("held", point)
        standing = guest.stats()
        assert there["point"] == point
        assert there["id"] == standing["last_id"]
        assert standing["answers"] == before["answers"]
        assert standing["stood"] == before["stood"] + 1
        assert (there["entries"] == 0) == (point == "before-walk")
        assert guest.call("release")["released"]
        # It stands no more; the hold is there for the next walk.
        assert not guest.call("release")["released"]
        guest.call("unhold", point)
    assert guest.stats()["answers"] > before["answers"]


def test_midway_after_so_many_entries(guest: ModuleGuest) -> None:
    guest.call("load", "fragmented", 1, 32 << 20)
    guest.call("hold", "mid-walk", 700)
    with guest.migration():
        # Where the list ends just there, it goes on to the middle of another.
        assert 700 <= guest.call("held", "mid-walk")["entries"] < 1400
        guest.call("unhold")
    guest.call("unload")


def test_a_newer_request_ends_a_hold(guest: ModuleGuest) -> None:
    guest.call("hold", "after-walk")
    guest.begin_migration()
    first = guest.call("held", "after-walk")["id"]
    guest.monitor.execute("migrate_cancel")
    guest.wait_for_migration("cancelled")
    before = guest.stats()
    with guest.migration():
        # Only the end of the first makes room for another.
        while (second := guest.call("held", "after-walk")["id"]) == first:
            pass
        assert second != first
        assert guest.stats()["superseded"] == before["superseded"] + 1
        guest.call("unhold")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hold", "nowhere"), "nowhere: the module knows no such thing"),
        (("held", "nowhere"), "nowhere: the module knows no such thing"),
        (("held", "../hold"), "knows no such thing"),
        (("misbehave", "nicely"), "nicely: the module knows no such thing"),
        (("misbehave", "report-owned"), "knows no such thing"),
        (("misbehave", "report-owned", "1"), "knows no such thing"),
        (("misbehave", "past-end", "1"), "knows no such thing"),
        (("misbehave", "header", 6, 0), "knows no such thing"),
    ],
)
def test_what_it_does_not_know(guest: ModuleGuest, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(MachineryError, match=message):
        guest.call(*words)
