# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that died after its migration: what the same guest does without one decides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.events import EventStream
from harness.report.folder import RunFolder
from harness.run import without_migration
from harness.run.boot import ReadyGuest
from harness.run.findings import Findings, GuestReview
from harness.run.without_migration import look_without_migration
from harness.verdict.finding import Finding
from harness.verdict.judge import JudgeInput, judge_memory

DIED = Finding("guest-died", "guest", "the guest, whose memory was right, did not go on")
OTHER = Finding("none-runs", "outcome", "no QEMU runs the guest")


def looked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, died: str | None, *found: Finding, local: bool = True
) -> Findings:
    asked: list[int] = []

    def dies(*_: object) -> str | None:
        asked.append(1)
        return died

    monkeypatch.setattr(without_migration, "_dies", dies)
    ready = SimpleNamespace(plan=SimpleNamespace(machines=SimpleNamespace(local=local)))
    findings = Findings(
        evidence=None,
        memory=judge_memory(JudgeInput(arm="off", blocks=())),
        statistics=None,
        counters={},
        completed_at=None,
        held_seconds=0.0,
        guest=GuestReview(None, None),
        found=found,
    )
    place = RunFolder.create(folder / "run", "idle", "off")
    after = look_without_migration(cast("ReadyGuest", ready), place, EventStream(), findings)
    assert len(asked) == (DIED in found and local)
    return after


def test_no_guest_has_died(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert looked(monkeypatch, tmp_path, "it panics", OTHER).found == (OTHER,)


def test_the_same_guest_goes_on_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    after = looked(monkeypatch, tmp_path, None, OTHER, DIED)
    assert [finding.rule for finding in after.found] == ["none-runs", "guest-died"]
    assert "stopped and continued instead, the same guest goes on" in after.found[1].text
    assert after.unexercised == ()


def test_the_same_guest_dies_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    after = looked(monkeypatch, tmp_path, "its kernel panicked", OTHER, DIED)
    assert after.found == (OTHER,)
    (words,) = after.unexercised
    assert "dies without a migration as well" in words
    assert words.endswith("its kernel panicked")


def test_remote_hosts_are_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (found,) = looked(monkeypatch, tmp_path, None, DIED, local=False).found
    assert "not run without a migration" in found.text
