# SPDX-License-Identifier: GPL-2.0-or-later
"""The event stream and its subscribers, deadlines, and the errors."""

from __future__ import annotations

import io
import json
import re
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from harness.errors import (
    DeadlineExceeded,
    ExitCode,
    FreepageError,
    GuestLost,
    HostLost,
    InputError,
    MachineryError,
)
from harness.events import Deadline, Event, EventStream, JsonLinesFile, jsonable, step_seconds
from harness.terminal import TerminalProgress, Verbosity


def kinds(stream: EventStream) -> list[str]:
    return [event.kind for event in stream.history()]


def test_events_come_in_order_to_everybody() -> None:
    stream, seen = EventStream(), []
    end = stream.subscribe(seen.append)
    first = stream.emit("a", source="x", value=1)
    stream.emit("b")
    end()
    end()
    stream.emit("c")
    assert [event.kind for event in seen] == ["a", "b"]
    assert [event.seq for event in stream.history()] == [0, 1, 2, 3]
    assert kinds(stream) == ["stream-start", "a", "b", "c"]
    assert (first.source, first.data) == ("x", {"value": 1})
    with pytest.raises(TypeError):
        first.data["value"] = 2  # type: ignore[index]


def test_replay_hands_on_what_was_missed() -> None:
    stream, seen = EventStream(), []
    stream.emit("early")
    stream.subscribe(seen.append, replay=True)
    stream.emit("late")
    assert [event.kind for event in seen] == ["stream-start", "early", "late"]


def test_a_subscriber_may_emit_and_order_is_kept() -> None:
    stream, seen = EventStream(), []

    def echo(event: Event) -> None:
        if event.kind == "ask":
            stream.emit("answer")

    stream.subscribe(echo)
    stream.subscribe(seen.append)
    stream.emit("ask")
    assert [event.kind for event in seen] == ["ask", "answer"]


def test_a_subscriber_that_fails_is_dropped_and_said_so() -> None:
    stream, seen = EventStream(), []

    def broken(event: Event) -> None:
        raise OSError("disk full")

    stream.subscribe(broken)
    stream.subscribe(seen.append)
    stream.emit("a")
    stream.emit("b")
    assert [event.kind for event in seen] == ["a", "warning", "b"]
    assert "disk full" in str(seen[1].data["text"])


def test_many_threads() -> None:
    stream, seen = EventStream(), []
    stream.subscribe(seen.append)
    threads = [threading.Thread(target=lambda: [stream.emit("x") for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.seq for event in seen] == list(range(1, 1601))


def test_wait_finds_what_was_and_what_comes() -> None:
    stream = EventStream()
    cause = stream.emit("cause")
    stream.emit("effect", n=1)
    assert stream.wait(lambda e: e.kind == "effect", Deadline(5, "it")).data["n"] == 1
    assert stream.wait(lambda e: e.kind == "effect", Deadline(5, "it"), after=cause.seq).data["n"] == 1
    later = threading.Thread(target=lambda: stream.emit("effect", n=2))
    last = stream.history()[-1].seq
    later.start()
    assert stream.wait(lambda e: e.kind == "effect", Deadline(5, "it"), after=last).data["n"] == 2
    later.join()
    with pytest.raises(DeadlineExceeded, match=r"the other: not within 0.01 s"):
        stream.wait(lambda e: e.kind == "other", Deadline(0.01, "the other"))


def test_steps_say_how_they_went() -> None:
    stream = EventStream()
    with stream.step("outer", size="1GiB"), stream.step("inner") as inner:
        inner.note(found=3)
    with pytest.raises(InputError), stream.step("bad", source="the file"):
        raise InputError("no good")
    with pytest.raises(KeyboardInterrupt), stream.step("stopped"):
        raise KeyboardInterrupt
    events = [(event.kind, event.data["step"], event.data["depth"]) for event in stream.history()[1:]]
    assert events == [
        ("step-start", "outer", 0),
        ("step-start", "inner", 1),
        ("step-stop", "inner", 1),
        ("step-stop", "outer", 0),
        ("step-start", "bad", 0),
        ("step-stop", "bad", 0),
        ("step-start", "stopped", 0),
        ("step-stop", "stopped", 0),
    ]
    stops = {event.data["step"]: event.data for event in stream.history() if event.kind == "step-stop"}
    assert stops["inner"]["found"] == 3
    assert stops["inner"]["error"] is None
    assert stops["bad"]["error"] == "no good"
    assert stops["stopped"]["error"] == "interrupted"
    assert stream.history()[1].data["size"] == "1GiB"
    seconds = step_seconds(stream.history())
    assert list(seconds) == ["outer", "bad", "stopped"]
    assert list(step_seconds(stream.history(), depth=None)) == ["inner", "outer", "bad", "stopped"]
    assert seconds["outer"] >= 0


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    stream = EventStream()
    with JsonLinesFile(path) as file:
        stream.subscribe(file, replay=True)
        stream.emit("odd", source="x", path=path, blob=b"\x01", text="ü\n")
        # Written at once: a killed run leaves what it had.
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["stream-start", "odd"]
    assert lines[1]["data"] == {"path": str(path), "blob": "01", "text": "ü\n"}
    assert lines[0]["data"]["wall"].endswith("+00:00")
    with pytest.raises(InputError, match="exists already"):
        JsonLinesFile(path)
    with pytest.raises(MachineryError, match="cannot write"):
        JsonLinesFile(tmp_path / "no" / "such")


def test_everything_can_be_logged() -> None:
    @dataclass
    class Thing:
        size: int

    class Colour(Enum):
        RED = "red"

    strange = object()
    assert jsonable({1: (Thing(2), Colour.RED, {3, 1}, np.uint64(7), np.arange(2), ValueError("x"))}) == {
        "1": [{"size": 2}, "red", [1, 3], 7, [0, 1], "ValueError: x"]
    }
    assert jsonable(strange) == repr(strange)
    assert jsonable([True, None, 1.5]) == [True, None, 1.5]


def test_deadlines() -> None:
    whole = Deadline(100, "the run")
    assert 99 < whole.remaining() <= 100
    assert not whole.expired
    whole.check()
    assert whole.timeout(5) == 5
    part = whole.sub(1000, "the boot")
    assert part._end == whole._end
    assert part.what == "the boot (within: the run)"
    assert whole.sub(1, "the boot").what == "the boot"
    gone = Deadline(-1, "the past")
    assert gone.expired
    assert gone.remaining() == 0
    for act in (gone.check, gone.timeout):
        with pytest.raises(DeadlineExceeded, match="the past: not within"):
            act()


def shown(stream: EventStream, *, verbose: bool = False) -> tuple[TerminalProgress, io.StringIO]:
    file = io.StringIO()
    return TerminalProgress(stream, level=Verbosity.VERBOSE if verbose else None, file=file), file


def test_plain_progress() -> None:
    stream = EventStream()
    progress, file = shown(stream)
    with progress:
        with stream.step("build", flavour="[bold]"):
            stream.emit("progress", step="build", done=1, total=2)
            stream.emit("message", text="x [red] y")
            stream.emit("silent")
        with pytest.raises(InputError), stream.step("boot"):
            raise InputError("no")
        stream.emit("warning", text="careful", hint="do this")
        with progress.suspended():
            stream.emit("message", text="unseen")
    stream.emit("message", text="after")
    lines = file.getvalue().splitlines()
    assert lines[0] == "...  build flavour=[bold]"
    assert lines[1] == "x [red] y"
    assert re.fullmatch(r"ok   build  \d+\.\d\d s", lines[2])
    assert lines[3] == "...  boot"
    assert re.match(r"fail boot  \d+\.\d\d s", lines[4])
    assert lines[4].endswith("  no")
    assert lines[5:] == ["careful", "hint: do this"]


def test_plain_progress_speaks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.terminal.PLAIN_PROGRESS_SECONDS", 0.0)
    stream = EventStream()
    progress, file = shown(stream, verbose=True)
    with progress, stream.step("fetch"):
        stream.emit("progress", step="fetch", done=2**20, total=4 * 2**20, unit="bytes")
        stream.emit("STOP", source="source.qmp", reason="x")
    text = file.getvalue()
    assert "fetch: 1 MiB of 4 MiB (25 %)" in text
    assert "source.qmp STOP reason=x" in text


def test_exit_codes() -> None:
    assert [FreepageError("x").exit_code, InputError("x").exit_code, GuestLost("x").exit_code] == [3, 2, 3]
    assert [code.value for code in ExitCode] == [0, 1, 2, 3, 4]
    assert isinstance(DeadlineExceeded("x"), MachineryError)


def test_errors_say_what_to_do() -> None:
    error = InputError("no such file", hint="look elsewhere")
    assert (str(error), error.render()) == ("no such file", "no such file\nhint: look elsewhere")
    lost = HostLost("QEMU ended", last_lines=["a", "b"], command=["qemu", "-append", "x y"], hint="see log")
    assert lost.render().splitlines() == [
        "QEMU ended",
        "last words:",
        "  | a",
        "  | b",
        "command line: qemu -append 'x y'",
        "hint: see log",
    ]
