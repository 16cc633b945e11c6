# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of the control channel: the guest's agent, compiled here, on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from harness.errors import MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.scenario.actions.base import ACTIONS, GuestAction
from harness.scenario.actions.stage import Stage
from harness.scenario.script import Entry
from harness.scenario.workloads.base import WORKLOADS
from harness.scenario.workloads.churn import Churn
from harness.script.runner import ScriptRunner
from tests.unit.fake_stage import FakeStage
from tests.unit.guest_programs import SOURCES, made

POWEROFF = 42


def soon() -> Deadline:
    return Deadline(30, "the test")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("programs"), "agent", "workload", "exercise", sanitized=True)


class Agent:
    """The agent on a pseudo terminal, which one socket after the other leads to."""

    def __init__(self, programs: Path) -> None:
        self.terminal, theirs = os.openpty()
        tty.setraw(theirs)
        where = ["--tty", os.ttyname(theirs), "--programs", str(programs)]
        self.process = subprocess.Popen([str(programs / "agent"), *where])
        # Open until the agent has it open, else the first byte would be lost.
        self._theirs = theirs
        self._stop: Callable[[], None] | None = None

    def connect(self) -> socket.socket:
        """A new connection to the same agent, like a migration makes one; the old one goes dead."""
        self.disconnect()
        ours, theirs = socket.socketpair()
        wake = os.eventfd(0)
        thread = threading.Thread(target=self._carry, args=(theirs, wake), daemon=True)
        thread.start()

        def stop() -> None:
            os.eventfd_write(wake, 1)
            thread.join()
            os.close(wake)
            theirs.close()

        self._stop = stop
        return ours

    def disconnect(self) -> None:
        if self._stop:
            self._stop()
            self._stop = None

    def _carry(self, end: socket.socket, wake: int) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (self.terminal, end, wake):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake in ready:
                    return
                if end in ready:
                    data = end.recv(4096)
                    if not data:
                        selector.unregister(end)
                    os.write(self.terminal, data)
                if self.terminal in ready:
                    with contextlib.suppress(OSError):
                        end.sendall(os.read(self.terminal, 4096))

    def close(self) -> None:
        self.disconnect()
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self.terminal)


@pytest.fixture
def agent(programs: Path) -> Iterator[Agent]:
    agent = Agent(programs)
    yield agent
    agent.close()


@pytest.fixture
def events() -> EventStream:
    return EventStream()


@pytest.fixture
def control(agent: Agent, events: EventStream) -> Iterator[GuestControl]:
    with GuestControl(events) as control:
        control.attach("source", agent.connect())
        assert control.wait_ready(soon())["driver"] == "none"
        yield control


def test_every_workload_is_what_the_host_expects(control: GuestControl) -> None:
    for kind in ("idle", "freed", "fragmented"):
        loaded = control.call("load", kind, 3, 1 << 20, "keep=8192", deadline=soon())
        verified = control.call("verify", deadline=soon())
        expected = WORKLOADS[kind].model_construct(keep=8192).expected(3, 1 << 20)
        for answer in loaded, verified:
            assert (answer["pages"], answer["checksum"]) == (expected.pages, expected.checksum)
            assert answer["bad"] == 0


def test_churn_runs_until_it_is_stopped(control: GuestControl) -> None:
    control.call("load", "churn", 4, 1 << 20, "rate=200000", deadline=soon())
    steps: list[object] = []
    while len(set(steps)) < 3:
        steps.append(control.call("verify", deadline=soon())["steps"])
    stopped = control.call("stop", deadline=soon())["steps"]
    assert isinstance(stopped, int)
    verified = control.call("verify", deadline=soon())
    expected = Churn().expected(4, 1 << 20, stopped)
    assert (verified["pages"], verified["checksum"]) == (expected.pages, expected.checksum)


def test_exercise_and_the_rest(control: GuestControl, tmp_path: Path) -> None:
    exercised = control.call("exercise", 5, f"limit={1 << 20}", deadline=soon())
    assert (exercised["pages"], exercised["bad"], exercised["nonzero"]) == (256, 0, 0)
    stats = control.call("stats", deadline=soon())
    assert isinstance(stats["mem_total"], int) and stats["mem_total"] > 1 << 20
    control.call("load", "freed", 3, 0, "keep=8192", deadline=soon())
    assert control.call("ping", deadline=soon())["loaded"]
    control.call("frames", str(tmp_path / "frames"), deadline=soon())
    assert (tmp_path / "frames").stat().st_size == 2 * 16
    control.call("unload", deadline=soon())
    assert not control.call("ping", deadline=soon())["loaded"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bogus",), "unknown verb"),
        (("verify",), "nothing is loaded"),
        (("load", "freed", "1", str(1 << 45)), "available"),
        (("load", "unheard-of", "1", "1"), "unknown workload"),
        (("exercise",), "expected"),
        (("frames", "relative"), "nothing is loaded"),
        (("load", *"abcdefghijklmnopqrstuvwxyz" * 2), "too many"),
        # As many as misbehave may have get as far as the module that is not there.
        (("misbehave", "report-owned", *"12345678" * 4), "not loaded"),
        (("pages-free",), "wrong arguments"),
        (("pages-read", "1"), "wrong arguments"),
        (("clock", "1"), "wrong arguments"),
    ],
)
def test_refusals(control: GuestControl, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(MachineryError, match=says):
        control.call(*words, deadline=soon())
    control.call("ping", deadline=soon())


def test_call_survives_a_move(control: GuestControl, agent: Agent) -> None:
    """The connection goes dead with half a line in it, and another one takes over."""
    control.call("load", "freed", 3, 0, "keep=8192", deadline=soon())
    os.write(agent.terminal, b"77 pin")  # what had arrived of a line whose end is lost
    control.attach("destination", agent.connect())
    control.rebind("destination")
    assert control.call("verify", deadline=soon())["pages"] == 2


def test_nothing_is_done_twice(agent: Agent) -> None:
    """A number that was answered gets the same answer; a newer number is a new call."""
    with agent.connect() as end, end.makefile("rb") as lines:
        end.settimeout(30)
        assert lines.readline().startswith(b"ready ")
        end.sendall(b"1 load churn 1 1048576 rate=100000\n")
        lines.readline()
        end.sendall(b"2 verify\n")
        first = lines.readline()
        end.sendall(b"\x152 verify\n3 ping\n2 verify\n")
        assert lines.readline() == first
        assert lines.readline().startswith(b"3 ok")
        assert lines.readline() == first
        end.sendall(b"4 verify\n")
        assert lines.readline().startswith(b"4 ok")


def test_lines_that_are_none(agent: Agent) -> None:
    with agent.connect() as end, end.makefile("rb") as lines:
        end.settimeout(30)
        lines.readline()
        end.sendall(b"\n\n" + b"x" * 9000 + b"\n0 ping\nping\n\xff\n5 ping\n")
        said = [lines.readline() for _ in range(5)]
        assert [line[:2] for line in said] == [b"! ", b"! ", b"! ", b"! ", b"5 "]


def test_workload_that_dies_is_reported(control: GuestControl, agent: Agent, events: EventStream) -> None:
    control.call("load", "freed", 3, 0, "keep=8192", deadline=soon())
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    os.kill(int(children[0]), 9)
    said = events.wait(lambda event: event.kind == "guest-says", soon())
    assert "by signal 9" in str(said.data["text"])
    with pytest.raises(MachineryError, match="nothing is loaded"):
        control.call("verify", deadline=soon())


def test_poweroff_is_the_agents_last_word(control: GuestControl, agent: Agent) -> None:
    control.call("poweroff", deadline=soon())
    assert agent.process.wait(30) == POWEROFF


def test_the_agent_watches_memory_and_work(control: GuestControl) -> None:
    began = control.call("clock", deadline=soon())["us"]
    assert isinstance(began, int)
    control.call("load", "churn", 1, 1 << 20, "rate=100000", deadline=soon())
    control.call("watch", 5, deadline=soon())
    window: dict[str, object] = {"samples": 0}
    while not isinstance(window["samples"], int) or window["samples"] < 20:
        window = dict(control.call("window", began, 1 << 62, deadline=soon()))
    assert isinstance(window["us"], int)
    assert isinstance(window["gap_us"], int)
    assert isinstance(window["work"], int)
    assert 0 < window["gap_us"] <= window["us"]
    assert window["work"] > 0
    assert window["mem_free_lowest"]
    # Nothing lies outside of the window; and without a sample nothing is claimed.
    empty = {"samples": 0, "us": 0, "work": 0, "mem_free_lowest": 0, "gap_us": 0}
    assert control.call("window", 0, began, deadline=soon()) == empty
    with pytest.raises(MachineryError):
        control.call("watch", 0, deadline=soon())


def test_the_agent_reads_the_buddy_lists(control: GuestControl) -> None:
    expected: list[int] = []
    for line in Path("/proc/buddyinfo").read_text().splitlines():
        numbers = [int(word) for word in line.split("zone")[1].split()[1:]]
        expected = [a + b for a, b in zip(expected or [0] * len(numbers), numbers, strict=True)]
    found = control.call("orders", deadline=soon())["blocks"]
    assert isinstance(found, list)
    # It goes on while we look: the number of orders stays.
    assert len(found) == len(expected)
    assert sum(found) > 0 or sum(expected) == 0


#: What a verb of one's own takes in verbs.c: its function, in front of the table, and its line in there.
FUNCTION = """\
static void count(const struct call *c)
{
	reply(c->n, "ok {\\"counted\\":%d,\\"from\\":\\"%s\\"}", c->argc, c->argv[1]);
}

"""
LINE = '\t{ "count", 1, 3, count },\n'


def test_a_verb_is_a_function_and_a_line_of_the_table(tmp_path: Path, events: EventStream) -> None:
    """And an action of a script that has it done is a class."""
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources)
    source = (sources / "verbs.c").read_text(encoding="utf-8")
    for mark, added in (("static const struct verb {\n", FUNCTION), ('\t{ "ping", ', LINE)):
        assert source.count(mark) == 1
        source = source.replace(mark, added + mark)
    (sources / "verbs.c").write_text(source, encoding="utf-8")
    programs = made(tmp_path / "made", "agent", sources=sources)
    answers: list[object] = []
    with ACTIONS.temporary():

        class Count(GuestAction):
            """The guest counts."""

            action: Literal["count"] = "count"
            start: str
            """From where."""

            def carry_out(self, stage: Stage, deadline: Deadline) -> None:
                answers.append(stage.guest.call("count", self.start, "x", deadline=deadline))

        with contextlib.closing(Agent(programs)) as agent, GuestControl(events) as control:
            control.attach("source", agent.connect())
            control.wait_ready(soon())
            inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
            entry = Entry.model_validate({"at": "active", "do": [{"action": "count", "start": "zero"}]})
            stage = FakeStage()
            stage.guest.call = control.call  # type: ignore[method-assign]
            runner = ScriptRunner([entry], stage, events, inbox.put)
            runner.happened("active")
            runner.settle(lambda _: inbox.get(timeout=30), soon())
            # The table counts the words.
            with pytest.raises(MachineryError, match="wrong arguments"):
                control.call("count", deadline=soon())
            with pytest.raises(MachineryError, match="wrong arguments"):
                control.call("count", 1, 2, 3, 4, deadline=soon())
    assert answers == [{"counted": 3, "from": "zero"}]


# ------------------------------------------------------------- it waits for nothing


@pytest.fixture
def slow_kernel(programs: Path, tmp_path: Path) -> Iterator[Path]:
    """An agent whose kernel takes its time with whatever is written to a pipe; the folder of the pipes."""
    places = {"KMEMLEAK": "kmemleak", "MEMORY_BLOCKS": "memory"}
    block = tmp_path / "memory" / "memory7"
    block.mkdir(parents=True)
    os.mkfifo(tmp_path / "kmemleak")
    (block / "state").write_text("online\n")
    (tmp_path / "workload").write_text(LINGERS)
    (tmp_path / "workload").chmod(0o755)
    made(tmp_path, "agent", defines={name: str(tmp_path / place) for name, place in places.items()})
    yield tmp_path


#: A workload that is not gone when it has said its last word.
LINGERS = """\
#!/bin/sh
echo '{"kind":"idle","pages":0,"checksum":"0000000000000000","bad":0,"first_bad":null,"seconds":0.0}'
read line
exec >&- <&-
sleep 600 &
echo $! > "$(dirname "$0")/lingers"
wait
"""


@pytest.fixture
def patient(slow_kernel: Path, events: EventStream) -> Iterator[GuestControl]:
    agent = Agent(slow_kernel)
    with GuestControl(events) as control:
        control.attach("source", agent.connect())
        control.wait_ready(soon())
        yield control
    agent.close()


def test_a_search_for_leaks_keeps_nobody_waiting(slow_kernel: Path, patient: GuestControl) -> None:
    with ThreadPoolExecutor() as pool:
        searched = pool.submit(patient.call, "kmsg", 0, deadline=soon())
        for _ in range(3):
            assert patient.call("ping", deadline=soon())["driver"] == "none"
        assert not searched.done()
        # What it has opened is opened from this end; what it opens next answers at once.
        kmemleak, other = slow_kernel / "kmemleak", slow_kernel / "other"
        other.hardlink_to(kmemleak)
        (slow_kernel / "empty").touch()
        (slow_kernel / "empty").rename(kmemleak)
        end = os.open(other, os.O_RDONLY | os.O_NONBLOCK)
        assert searched.result(timeout=30)["count"] == 0
        os.close(end)


def test_memory_that_takes_its_time_keeps_nobody_waiting(slow_kernel: Path, patient: GuestControl) -> None:
    state = slow_kernel / "memory" / "memory7" / "state"
    state.unlink()
    os.mkfifo(state)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(patient.call, "memory-offline", 1, deadline=soon())
        assert patient.call("ping", deadline=soon())["loaded"] is False
        assert not taken.done()
        with state.open("w") as file:
            file.write("online\n")
        with state.open("r") as file:
            assert file.read() == "offline"
        assert taken.result(timeout=30)["blocks"] == [7]


def test_a_program_that_takes_its_time_to_end_keeps_nobody_waiting(
    slow_kernel: Path, patient: GuestControl
) -> None:
    patient.call("load", "idle", 1, 1, deadline=soon())
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(patient.call, "stop", deadline=soon())
        while not (slow_kernel / "lingers").exists():
            patient.call("ping", deadline=soon())
        assert patient.call("ping", deadline=soon())["loaded"] is False
        assert not stopped.done()
        # Unloaded, it is killed; and the answer comes when it is gone.
        assert patient.call("unload", deadline=soon()) == {}
        with pytest.raises(MachineryError, match="by signal 9"):
            stopped.result(timeout=30)
    os.kill(int((slow_kernel / "lingers").read_text()), signal.SIGKILL)


def test_what_is_loaded_in_the_place_of_something_else_waits_for_its_end(control: GuestControl) -> None:
    control.call("load", "idle", 1, 1 << 20, deadline=soon())
    assert control.call("load", "freed", 3, 1 << 20, deadline=soon())["kind"] == "freed"
    assert control.call("verify", deadline=soon())["bad"] == 0
    assert control.call("unload", deadline=soon()) == {}
    assert control.call("ping", deadline=soon())["loaded"] is False
