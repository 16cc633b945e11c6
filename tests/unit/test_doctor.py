# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor: every finding says what to do, and what is missing decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import accel
from harness.doctor import Finding, Level, examine, findings, possible
from harness.doctor.show import as_document
from harness.events import EventStream
from harness.toolchain.cache import Cache


def cache_of(folder: Path, *, built: bool) -> Cache:
    cache = Cache(folder, EventStream())
    if built:
        for kind in ("qemu", "kernel", "module", "image", "firmware"):
            (folder / "store" / kind / "key").mkdir(parents=True)
        (folder / "store/kernel/key/boot").mkdir()
        (folder / "store/kernel/key/boot/vmlinuz-6.1").touch()
        (folder / "store/qemu/key/facts.json").write_text('{"sha256": "00"}')
        (folder / "store/qemu/key/made-of.json").write_text('{"source": "10.0.13", "patches": ["a", "b"]}')
        # What another run is at is not there yet.
        (folder / "store/qemu/.key.unfinished").mkdir()
    return cache


def look(cache: Cache) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(EventStream(), cache)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "_namespaces", lambda: Finding("namespaces", Level.OK, ""))


def test_nothing_built_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: None)
    seen = look(cache_of(tmp_path, built=False))
    assert seen["qemu"].level is Level.NOTE
    assert seen["qemu"].advice == "freepage build"
    # There is nothing to try KVM with, and it is not claimed to work.
    assert seen["kvm"].level is Level.NOTE
    assert "not known" in seen["kvm"].text


@pytest.mark.parametrize("usable", [True, False])
def test_kvm_is_usable_if_a_guest_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    asked: list[accel.Machine] = []

    def probe(machine: accel.Machine, *_: object) -> accel.Probe:
        asked.append(machine)
        return accel.Probe(usable, "because")

    monkeypatch.setattr(accel, "device_problem", lambda: None)
    monkeypatch.setattr(accel, "probe", probe)
    seen = look(cache_of(tmp_path, built=True))
    assert seen["kvm"].level is (Level.OK if usable else Level.NOTE)
    assert "because" in seen["kvm"].text
    assert asked[0].vmlinuz.name == "vmlinuz-6.1"
    assert seen["qemu"].text == "1 in the cache, the newest 10.0.13 with 2 patches"


def test_a_missing_device_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: "there is no /dev/kvm")
    seen = look(cache_of(tmp_path, built=True))
    assert seen["kvm"].text.startswith("there is no /dev/kvm; ")


def test_little_memory_is_a_note_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.session.prepare.memory_available", lambda: 1 << 30)
    finding = look(cache_of(tmp_path, built=False))["memory"]
    assert (finding.level, finding.text) == (Level.NOTE, "1GiB available")
    assert finding.advice


def test_what_is_missing_decides() -> None:
    ok, note, missing = (Finding(level.value, level, "text") for level in Level)
    assert possible([ok, note])
    assert not possible([ok, missing])
    document = as_document([ok, missing])
    assert document["possible"] is False
    assert document["findings"] == [
        {"name": "ok", "level": "ok", "text": "text", "advice": None},
        {"name": "missing", "level": "missing", "text": "text", "advice": None},
    ]
