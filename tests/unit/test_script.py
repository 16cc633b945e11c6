# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario's script: which moments it takes, in which order, and what it leaves undone."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from harness.errors import DeadlineExceeded, GuestLost, GuestRefused, InputError, MachineryError
from harness.events import Deadline, EventStream
from harness.migration.inbox import Completion
from harness.migration.qmp import CommandError, QemuGone
from harness.scenario.actions.migration import Stall, Unstall
from harness.scenario.actions.monitor import Wait
from harness.scenario.load import load_scenario
from harness.scenario.resolve import MachineFacts, resolve
from harness.scenario.script import Entry, holds_needed, needs_controls
from harness.script.closed_window import ClosedWindow
from harness.script.outcome import ENTRY_BEGINS
from harness.script.runner import ScriptRunner
from harness.script.stage import RunStage
from harness.script.wire import waits_for_room
from tests.unit.fake_stage import FakeStage


class Scene:
    def __init__(self, *entries: dict[str, Any]) -> None:
        self.stage = FakeStage()
        self.inbox: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        script = tuple(Entry.model_validate(entry) for entry in entries)
        self.runner = ScriptRunner(script, self.stage, EventStream(), self.inbox.put)
        self.runner.begin()

    def hold(self, point: str) -> list[str]:
        over: list[str] = []
        self.runner.happened(point, then=lambda: over.append("over"))
        return over

    def answer(self) -> None:
        self.runner.answered(self.inbox.get(timeout=10))


def does(at: str, *actions: str, **more: Any) -> dict[str, Any]:
    arguments = {"pages-alloc": {"pages": 1}, "module-hold": {"point": "before-walk"}}
    return {"at": at, **more, "do": [{"action": word, **arguments.get(word, {})} for word in actions]}


def test_entries_are_done_in_the_order_of_the_file() -> None:
    scene = Scene(does("active", "stop"), does("request", "cont"), does("active", "cancel"))
    scene.runner.happened("request")  # not its turn
    scene.runner.happened("active")
    scene.runner.happened("active")  # not its turn either
    assert scene.stage.did == ["stop"]
    over = scene.hold("request")
    scene.runner.happened("active")
    assert scene.stage.did == ["stop", "migrate_cancel"]
    # In a hold, cont is the hold's own end, and there is one.
    assert over == ["over"]
    assert scene.runner.unreached == ()


def test_a_hold_without_an_entry_is_over_at_once() -> None:
    assert Scene().hold("request") == ["over"]
    assert Scene(does("request", "stop", number=2)).hold("request") == ["over"]


def test_a_hold_lasts_until_its_entry_is_done() -> None:
    scene = Scene(does("request", "stop", "qmp-answers"))
    assert scene.hold("request") == ["over"]
    assert scene.stage.did == ["stop", "query-status", "query-migrate"]
    # Nothing of it went through the inbox.
    assert scene.inbox.empty()
    assert not scene.runner.busy


def test_the_nth_counts_from_the_beginning() -> None:
    scene = Scene(does("request", "stop"), does("request", "cancel", number=3))
    for _ in range(2):
        scene.runner.happened("request")
    assert scene.stage.did == ["stop"]
    scene.runner.happened("request")
    assert scene.stage.did == ["stop", "migrate_cancel"]


def test_a_pass_has_its_own_number() -> None:
    scene = Scene(does("pass", "stop", number=4))
    scene.runner.happened("pass", number=3)
    assert not scene.stage.did
    scene.runner.happened("pass", number=4)
    assert scene.stage.did == ["stop"]


def test_holds_are_answered_while_the_guest_is_waited_for() -> None:
    scene = Scene(does("active", "pages-alloc", "stop"), does("request", "cancel"))
    scene.runner.happened("active")
    assert scene.hold("request") == ["over"]
    assert scene.runner.busy
    assert len(scene.runner.unreached) == 2
    scene.stage.guest.go.put(None)
    scene.answer()
    assert scene.stage.did == ["pages-alloc", "stop"]
    assert [entry.at for entry in scene.runner.unreached] == ["request"]


def test_what_the_last_action_leads_to_may_come_before_the_guest_says_so() -> None:
    scene = Scene(does("active", "module-unhold"), does("answer", "stop", "cont", "pages-alloc"))
    scene.runner.happened("active")
    over = scene.hold("answer")
    # The hold has stopped the guest before it could answer; the entry goes on all the same.
    assert over == ["over"]
    assert scene.stage.did == ["stop"]
    for _ in range(2):
        scene.stage.guest.go.put(None)
        scene.answer()
    assert scene.stage.did == ["stop", "unhold", "pages-alloc"]
    assert not scene.runner.busy


def test_an_applied_answer_waits_for_the_entry_that_is_being_done() -> None:
    scene = Scene(does("active", "pages-alloc", "stop"), does("applied", "cancel"))
    scene.runner.happened("active")
    # The guest runs on in this hold, so it can last until the entry before is done.
    over = scene.hold("applied")
    assert over == []
    scene.stage.guest.go.put(None)
    scene.answer()
    assert scene.stage.did == ["pages-alloc", "stop", "migrate_cancel"]
    assert over == ["over"]
    assert scene.hold("applied") == ["over"], "nobody waits for the next one"


def test_the_guest_does_one_thing_after_the_other() -> None:
    scene = Scene(does("active", "pages-alloc"), does("pass", "pages-read"))
    scene.runner.happened("active")
    scene.runner.happened("pass")
    for _ in range(2):
        scene.stage.guest.go.put(None)
    scene.runner.settle(lambda _: scene.inbox.get(timeout=10), Deadline(10, "the script"))
    assert scene.stage.did == ["pages-alloc", "pages-read"]


def test_a_guest_that_refuses_is_an_error() -> None:
    scene = Scene(does("active", "pages-alloc"))
    scene.runner.happened("active")
    scene.stage.guest.go.put(MachineryError("no memory"))
    with pytest.raises(MachineryError, match="no memory"):
        scene.runner.settle(lambda _: scene.inbox.get(timeout=10), Deadline(10, "the script"))


def test_one_that_has_moved_and_refuses_is_a_finding() -> None:
    scene = Scene(does("active", "driver-bind", "stop"))
    scene.stage.guest_has_moved = True
    scene.runner.happened("active")
    scene.stage.guest.go.put(GuestRefused("the guest cannot driver-bind: no such device"))
    scene.runner.settle(lambda _: scene.inbox.get(timeout=10), Deadline(10, "the script"))
    assert scene.stage.did == ["driver-bind", "found guest-undone", "stop"]


def test_after_an_error_nobody_is_waited_for() -> None:
    """Nor does another entry begin; the one that was not done counts as not reached."""
    scene = Scene(does("active", "pages-alloc", "stop"), does("pass", "cancel"))
    scene.runner.happened("active")
    assert scene.runner.busy
    scene.stage.guest.go.put(MachineryError("gone"))
    with pytest.raises(MachineryError, match="gone"):
        scene.answer()
    assert not scene.runner.busy
    scene.runner.happened("pass")
    assert scene.stage.did == ["pages-alloc"]
    assert [entry.at for entry in scene.runner.unreached] == ["active", "pass"]
    on_the_host = Scene(does("active", "stop"))
    on_the_host.stage.source.late.add("stop")
    with pytest.raises(DeadlineExceeded):
        on_the_host.runner.happened("active")
    assert not on_the_host.runner.busy
    assert len(on_the_host.runner.unreached) == 1


def test_an_answer_to_nobody_is_ignored() -> None:
    Scene().runner.answered(Completion(0, MachineryError("of an earlier migration")))


def test_a_held_walk_is_a_moment() -> None:
    scene = Scene(does("before-walk", "stop"), does("after-walk", "cancel"))
    scene.stage.guest.walks.put("before-walk")
    scene.answer()
    assert scene.stage.did == ["stop"]
    scene.stage.guest.walks.put("after-walk")
    scene.answer()
    assert scene.stage.did == ["stop", "migrate_cancel"]


def scenario(tmp_path: Path, text: str) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: x\n{text}\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("script: [{at: lunch, do: [{action: stop}]}]", "2:11: script[0].at: expected 'start'"),
        ("script: [{at: active, do: []}]", "script[0].do: expected at least one, got none"),
        ("script: [{at: active, do: [{action: sotp}]}]", "did you mean 'stop'?"),
        ("script: [{at: active, do: [{action: stop, x: 1}]}]", "script[0].do[0].x: unknown key"),
        ("script: [{at: active, do: [{action: pages-alloc}]}]", "script[0].do[0].pages: missing"),
        ("script: [{at: active, do: [stop]}]", "script[0].do[0]: expected keys of its own"),
        ("script: [{at: active, move: 2, do: [{action: stop}]}]", "script[0].move: there is no move 2"),
        (
            "script: [{at: request, do: [{action: pages-read}]}]",
            "do[0].action: pages-read needs a running guest",
        ),
        (
            "guest: {module: test}\n"
            "script: [{at: active, do: [{action: module-hold, point: after-walk, entries: 3}]}]",
            "do[0].entries: only mid-walk",
        ),
        ("script: [{at: mid-walk, do: [{action: stop}]}]", "guest.module: expected test"),
        ("moves: []", "moves: expected at least one"),
        (
            "moves: [{ends: failed}]\nexpect: {total_ms_max: 3}",
            "expect.total_ms_max: expected only where the last of the moves completes",
        ),
        (
            "moves: [{ends: cancelled}]\nexpect: {skipping: true}",
            "expect.skipping: expected only where the last of the moves completes",
        ),
        ("moves: [{reason: x}, {}]", "moves[0].reason: expected only with ends: failed"),
        (
            "moves: [{}, {}]\nscript: [{at: active, move: 2, do: [{action: stop}]},"
            " {at: active, do: [{action: stop}]}]",
            "script[1].move: expected entries in the order of the moves",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(scenario(tmp_path, text))
    assert words in str(caught.value)


def test_a_script_survives_its_run_folder(tmp_path: Path) -> None:
    text = (
        "guest: {module: test}\nmoves: [{ends: cancelled}, {}]\n"
        "script: [{at: mid-walk, do: [{action: bandwidth, limit: 3MiB/s}, {action: module-unhold}]}]"
    )
    first = load_scenario(scenario(tmp_path, text))
    again = tmp_path / "again.yaml"
    again.write_text(first.to_yaml(), encoding="utf-8")
    assert load_scenario(str(again)) == first
    assert needs_controls(first.script)
    assert holds_needed(first.script) == ()


def test_what_a_script_waits_for_is_held(tmp_path: Path) -> None:
    text = "script: [{at: applied, do: [{action: cont}]}, {at: request, do: [{action: stop}]}]"
    script = load_scenario(scenario(tmp_path, text)).script
    assert holds_needed(script) == ("request", "applied")
    assert not needs_controls(script)


def _state(pid: int) -> str:
    """One letter, as ``ps`` has it."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def test_an_event_of_before_the_entry_does_not_count_where_the_entry_brings_it() -> None:
    events = EventStream()
    resolved = resolve(load_scenario("idle"), MachineFacts(memory_available=1 << 40))
    stage = RunStage(
        resolved, resolved.scenario.migration, cast(Any, None), lambda _: None, cast(Any, None), events
    )
    paused = {"data": {"status": "postcopy-paused"}}
    events.emit("MIGRATION", source="source.qmp", **paused)
    events.emit(ENTRY_BEGINS, at="postcopy-paused", number=1, move=1, entry=1)
    keys = {"event": "MIGRATION", "fields": paused["data"], "within_s": 1}
    soon = Deadline(10, "the test")
    Wait.model_validate(keys).carry_out(stage, soon)
    assert stage.outcome.findings == []
    anew = Wait.model_validate({**keys, "since": "entry"})
    anew.carry_out(stage, soon)
    assert [finding.rule for finding in stage.outcome.findings] == ["event-missing"]
    events.emit("MIGRATION", source="source.qmp", **paused)
    anew.carry_out(stage, soon)
    assert len(stage.outcome.findings) == 1


def test_a_reader_that_is_stopped_goes_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the wire between the hosts is left alone; without a reader it is the wire."""
    wire: list[bool] = []
    target = SimpleNamespace(set_wire=lambda *, up: wire.append(up))
    resolved = resolve(load_scenario("idle"), MachineFacts(memory_available=1 << 40))
    stage = RunStage(
        resolved,
        resolved.scenario.migration,
        cast(Any, None),
        lambda _: None,
        cast(Any, target),
        EventStream(),
    )
    blocked: list[str] = []
    monkeypatch.setattr(stage.wire, "wait_until_blocked", lambda: blocked.append("yes"))
    monkeypatch.setattr(stage.wire, "_wait_for_closed_window", lambda: None)
    soon = Deadline(10, "the test")
    with pytest.raises(MachineryError, match="no QEMU on the destination"):
        Stall(by="reader").carry_out(stage, soon)
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        try:
            stage.qemus.connected("destination", cast(Any, SimpleNamespace(pid=process.pid)))
            Stall(by="reader").carry_out(stage, soon)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert _state(process.pid) == "T"
            Unstall().carry_out(stage, soon)
            os.waitid(os.P_PID, process.pid, os.WCONTINUED)
            assert _state(process.pid) != "T"
            assert wire == []
            Stall().carry_out(stage, soon)
            Unstall().carry_out(stage, soon)
            assert wire == [False, True]
            assert len(blocked) == 2
        finally:
            process.kill()


class _Gone:
    """The monitor of a QEMU that ends before it answers."""

    def execute(self, command: str, *_: object, **__: object) -> object:
        raise QemuGone("source", command)


def test_a_source_that_is_done_is_asked_too_late() -> None:
    """Nobody has died of it; one that is gone before has."""
    events = EventStream()
    resolved = resolve(load_scenario("idle"), MachineFacts(memory_available=1 << 40))
    nobody = cast(Any, None)
    stage = RunStage(resolved, resolved.scenario.migration, nobody, lambda _: None, nobody, events)
    stage.qemus.connected("source", cast(Any, _Gone()))
    gone, refused = QemuGone("source", "query-status"), CommandError("migrate-pause is refused")

    def too_late(error: MachineryError, *, in_postcopy: bool = False) -> bool:
        return stage.came_too_late("postcopy-break", error, in_postcopy=in_postcopy)

    assert not too_late(gone)
    assert not too_late(refused, in_postcopy=True)
    runner = ScriptRunner([Entry.model_validate(does("start", "qmp-answers"))], stage, events, lambda _: None)
    with pytest.raises(GuestLost):
        runner.happened("start")
    events.emit("MIGRATION", source="source.qmp", data={"status": "completed"})
    runner = ScriptRunner([Entry.model_validate(does("start", "qmp-answers"))], stage, events, lambda _: None)
    runner.happened("start")
    assert not runner.busy
    assert runner.unreached == ()
    assert stage.outcome.late == ["qmp-answers came when the source had completed the migration"]
    assert too_late(refused, in_postcopy=True)
    assert not too_late(refused)
    assert not too_late(QemuGone("destination", "query-status"))
    assert stage.outcome.findings == []


def test_a_window_that_stays_closed_is_seen_in_the_list_of_connections() -> None:
    """On real connections: one that is read, and one that is not."""
    window = ClosedWindow()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as reader:

            def own() -> str:
                lines = Path("/proc/self/net/tcp").read_text("ascii").splitlines()
                peer = f"0100007F:{port:04X}"
                return "\n".join(lines[:1] + [line for line in lines if line.split()[2] == peer])

            client.sendall(b"a little")
            assert own().count("\n") == 1
            assert not window.stays_closed(own())
            client.setblocking(False)
            deadline = Deadline(60, "a window that stays closed")
            while not window.stays_closed(own()):
                deadline.check()
                with contextlib.suppress(BlockingIOError):
                    client.send(bytes(1 << 16))
            # It does: not even a byte goes, and what opens it again is a reader.
            with pytest.raises(BlockingIOError):
                client.send(b"x")
            reader.recv(1 << 24)
            while window.stays_closed(own()):
                deadline.check()


def look(*rows: tuple[str, str, int]) -> str:
    """A list of connections: its queue, its timer, and what is left of that."""
    lines = [
        f" {n}: 0100007F:A000 0100007F:{n:04X} 01 {queue}:00000000 {timer}:{left:08X} 00000000 0 0 1"
        for n, (queue, timer, left) in enumerate(rows)
    ]
    return "\n".join(["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when", *lines])


def test_a_window_is_closed_for_good_when_a_probe_has_changed_nothing() -> None:
    window = ClosedWindow()
    assert not window.stays_closed(look(("0000AAAA", "04", 20)))
    # A timer that runs down; set again twice, for a probe and its answer; and for the next probe.
    for left, closed in ((1, False), (40, False), (41, False), (30, False), (80, True)):
        assert window.stays_closed(look(("0000AAAA", "04", left))) == closed
    # More has been written: it goes on from the beginning.
    for left in (10, 160, 161, 300):
        assert not window.stays_closed(look(("0000BBBB", "04", left - 1), ("0000AAAA", "01", left)))
        window.stays_closed(look(("0000CCCC", "04", left)))
    # Retransmissions are no probes, and each connection is its own.
    window = ClosedWindow()
    for left in (1, 2, 3, 4, 5):
        assert not window.stays_closed(look(("0000AAAA", "01", left), ("0000AAAA", "04", 7)))


def test_a_thread_that_waits_for_good_is_told_from_one_with_a_time_limit() -> None:
    """On real threads; a lock of Python's is a semaphore, as what QEMU's thread waits for is."""
    go, ends = threading.Event(), socket.socketpair()
    waits: dict[str, Callable[[], object]] = {
        "for good": go.wait,
        "for a while": lambda: go.wait(1000),
        "for a poll": lambda: multiprocessing.connection.wait([ends[0]]),
    }
    threads = {what: threading.Thread(target=wait, daemon=True) for what, wait in waits.items()}

    def call(what: str) -> str:
        return Path(f"/proc/self/task/{threads[what].native_id}/syscall").read_text("ascii")

    for thread in threads.values():
        thread.start()
    deadline = Deadline(60, "threads that wait")
    while not (waits_for_room(call("for good")) and waits_for_room(call("for a poll"))):
        deadline.check()
    while not call("for a while").startswith("202 "):
        deadline.check()
    assert not waits_for_room(call("for a while"))
    assert not waits_for_room("running")
    # What a mutex is: FUTEX_WAIT_PRIVATE.
    assert not waits_for_room("202 0x7f0000000000 0x80 0x2 0x0 0x0 0x0 0x7f0000001000 0x7f0000002000")
    go.set()
    ends[1].close()
    for thread in threads.values():
        thread.join()
    ends[0].close()


@pytest.mark.parametrize(
    "action",
    [
        {"action": "kill-destination"},
        {"action": "qmp", "command": "query-status", "side": "destination"},
        {"action": "virtio-mem-resize", "plugged": "128MiB", "side": "destination"},
        {"action": "backend-kill", "device": "tpm"},
    ],
)
def test_at_start_there_is_no_destination_yet(action: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="no QEMU on the destination yet at start"):
        Entry.model_validate({"at": "start", "do": [action]})
    Entry.model_validate({"at": "setup", "do": [action]})
    if "side" in action:
        Entry.model_validate({"at": "start", "do": [{**action, "side": "source"}]})


@pytest.mark.parametrize("at", ["setup", "pass", "device", "completed"])
def test_nobody_waits_for_a_guest_that_is_not_there(at: str) -> None:
    resize = {"action": "virtio-mem-resize", "plugged": "128MiB", "side": "destination", "wait": True}
    with pytest.raises(ValidationError, match=f"not on the destination yet at {at}"):
        Entry.model_validate({"at": at, "do": [resize]})
    Entry.model_validate({"at": at, "do": [{**resize, "wait": False}]})
    Entry.model_validate({"at": "resumed", "do": [resize]})
