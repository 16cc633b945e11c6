# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is handed over to another QEMU: who is told what and when, and what does not go with it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import libvirt
import pytest

from harness.errors import DeadlineExceeded, InputError, MachineryError
from harness.events import Deadline
from harness.migration.hand_over import HandOver, HandOverRoute
from harness.migration.inbox import JobEnd
from harness.migration.qmp import CommandError
from harness.scenario.load import load_scenario

CPR, MAIN = Path("/lab/cpr.sock"), Path("/lab/main.sock")
THERE = object()


class HostOfOne:
    """libvirt waits for a QEMU's monitor, and that QEMU for its memory, if it starts at all."""

    def __init__(self, *, starts: bool = True) -> None:
        self.starts, self.handed = starts, threading.Event()
        self.listens = self.destroyed = False

    def open(self) -> HostOfOne:
        return self

    def connect(self) -> HostOfOne:
        return self

    def createXML(self, xml: str, flags: int) -> object:  # noqa: N802 - libvirt's name
        assert (xml, flags) == ("<domain/>", libvirt.VIR_DOMAIN_START_PAUSED)
        if not self.starts:
            raise libvirt.libvirtError("no such program")
        self.listens = True
        assert self.handed.wait(10)
        return THERE

    def accepts(self, path: Path) -> bool:
        assert path == CPR
        return self.listens

    def lookupByUUID(self, _: bytes) -> HostOfOne:  # noqa: N802 - libvirt's name
        return self

    def destroy(self) -> None:
        self.destroyed = True
        self.handed.set()


class LeavingDomain:
    def UUID(self) -> bytes:  # noqa: N802 - libvirt's name
        return b""


class ToldMonitor:
    def __init__(self, target: HostOfOne, *, refuses: bool = False, hands: bool = True) -> None:
        self.target, self.refuses, self.hands = target, refuses, hands
        self.told: list[tuple[str, Any]] = []

    def execute(self, command: str, arguments: Any = None) -> None:
        self.told.append((command, arguments))
        if self.refuses:
            raise CommandError("migration is blocked")
        if command == "migrate" and self.hands:
            self.target.handed.set()


class NoSettings:
    def apply(self, _: object) -> None:
        pass


def job_of(source: ToldMonitor, seconds: float = 10) -> tuple[HandOver, list[JobEnd]]:
    ends: list[JobEnd] = []
    anything: Any = source
    route = HandOverRoute(anything, CPR, MAIN, Deadline(seconds, "the migration"))
    arguments: tuple[Any, ...] = (LeavingDomain(), source.target, NoSettings(), ends.append, route)
    return HandOver(*arguments), ends


def test_the_source_is_told_before_the_destination_has_a_monitor() -> None:
    target = HostOfOne()
    source, destination = ToldMonitor(target), ToldMonitor(target)
    job, ends = job_of(source)
    job.begin("<domain/>")
    ((command, arguments),) = source.told
    assert command == "migrate"
    assert [(one["channel-type"], one["addr"]["path"]) for one in arguments["channels"]] == [
        ("main", str(MAIN)),
        ("cpr", str(CPR)),
    ]
    job.migrate(source, destination, "10.0.0.1")  # type: ignore[arg-type]
    assert destination.told == [("migrate-incoming", {"uri": f"unix:{MAIN}"})]
    assert not ends


def test_the_command_line_has_the_channel() -> None:
    route = HandOverRoute(None, CPR, MAIN, Deadline(1, "x"))  # type: ignore[arg-type]
    *head, channel = route.arguments
    assert head == ["-incoming", "defer", "-incoming"]
    assert json.loads(channel)["addr"] == {"transport": "socket", "type": "unix", "path": str(CPR)}


def test_a_source_that_refuses_ends_it_with_its_words() -> None:
    target = HostOfOne()
    job, ends = job_of(ToldMonitor(target, refuses=True))
    job.begin("<domain/>")
    assert job.over
    assert target.destroyed
    assert [str(end.error) for end in ends] == ["migration is blocked"]


def test_a_destination_that_does_not_start_is_an_error_at_once() -> None:
    job, _ = job_of(ToldMonitor(HostOfOne(starts=False)))
    with pytest.raises(MachineryError, match="the destination cannot wait for the guest"):
        job.begin("<domain/>")


def test_one_that_gets_stuck_is_out_of_time() -> None:
    target = HostOfOne()
    job, _ = job_of(ToldMonitor(target, hands=False), seconds=0.3)
    with pytest.raises(DeadlineExceeded):
        job.begin("<domain/>")
    target.handed.set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "guest.memory_backend: expected type: memfd, shared: mode: cpr-transfer"),
        (
            "guest: {memory_backend: {type: file}}",
            "own.yaml:2:9: guest.memory_backend: expected type: memfd, shared",
        ),
        ("guest: {memory_backend: {type: memfd, share: false}}", "expected type: memfd, shared"),
        (
            "guest: {memory_backend: {type: memfd}, dimm: 128MiB}",
            "guest.dimm: does not go together with mode",
        ),
        ("guest: {memory_backend: {type: memfd}}\ntap: true", "tap: does not go together with mode: cpr-tr"),
        (
            "guest: {memory_backend: {type: memfd}}\ntrace: pages",
            "trace: does not go together with mode: cpr",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "own.yaml"
    how = "migration: {parameters: {mode: cpr-transfer}}"
    path.write_text(f"name: own\n{text}\n{how}\n" if text else f"name: own\n{how}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    assert words in str(caught.value)
