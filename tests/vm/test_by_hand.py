# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that stand still for a person: what is at hand then, and that nothing is left over."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import invoke

#: An ordinary user.
NOBODY = 65534
_GOES_ON = "freepage: the run goes on"
_PROCESS = re.compile(r"^(source|destination): QEMU is process (\d+); (.*)$")
_LINE = re.compile(r"^  (gdb|HMP|QMP)(?:, or)? +(.*?(/proc/\S+)?)$")


class Stop:
    """What is said where a run stands still."""

    def __init__(self, lines: list[str]) -> None:
        self.why = next(line for line in reversed(lines) if line.startswith("freepage: "))
        self.text = "\n".join(lines)
        self.pids: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.lines: dict[tuple[str, str], str] = {}
        self.sockets: dict[tuple[str, str], Path] = {}
        side = ""
        for line in lines:
            if (found := _PROCESS.match(line)) is not None:
                side = found[1]
                self.pids[side], self.states[side] = int(found[2]), found[3]
            elif (way := _LINE.match(line)) is not None:
                self.lines[side, way[1]] = way[2]
                if way[3]:
                    self.sockets[side, way[1]] = Path(way[3])


def stops(process: subprocess.Popen[str]) -> Iterator[Stop]:
    """Each time that the run stands still."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        if line.startswith(_GOES_ON):
            yield Stop(lines)
            lines = []
        else:
            lines.append(line.rstrip("\n"))


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def pasted(line: str, typed: str) -> str:
    """What a line says when somebody pastes it into a shell, and types something."""
    done = subprocess.run(["bash", "-c", line], input=typed, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def state(pid: int) -> str:
    """The kernel's letter for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def qmp(path: Path, command: str) -> dict[str, object]:
    """Ask a QEMU by a monitor of the run's user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8", newline="\n") as channel:
            assert "QMP" in json.loads(channel.readline())
            for word in ("qmp_capabilities", command):
                channel.write(json.dumps({"execute": word}) + "\n")
                channel.flush()
                while "return" not in (answer := json.loads(channel.readline())):
                    assert "event" in answer, answer
            found: dict[str, object] = answer["return"]
            return found


#: A lab with a process and a socket in it; the numbers that both processes have outside are said first.
_LAB = """
import os, socket, subprocess, sys
from harness.hosts.enter import enter
from harness.hosts.outside import command_pid, outside_pid

def work():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("/run/freepage/here.sock")
        listener.listen(1)
        with subprocess.Popen(["sleep", "600"]) as child:
            print(outside_pid(os.getpid()), outside_pid(child.pid), command_pid(), flush=True)
            sys.stdin.read()
            child.kill()
    return 0

sys.exit(enter(work))
"""


@pytest.mark.parametrize("user", [0, NOBODY])
def test_a_lab_is_reached_from_outside(user: int, repository: Path) -> None:
    """As the lines say: by /proc/PID/root, by nsenter, and by the number of a process."""
    if os.geteuid() != 0:
        pytest.skip("as root it is shown for both")
    as_user = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--"]
    python = [sys.executable, "-P", "-c"]
    env = {**os.environ, "PYTHONPATH": str(repository), "HOME": "/"}
    if subprocess.run([*as_user, *python, "import harness.hosts.enter"], env=env, check=False).returncode:
        pytest.skip(f"what {sys.executable} depends on is not for other users")
    with subprocess.Popen(
        [*as_user, *python, _LAB], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdin is not None
        assert lab.stdout is not None
        pid, child, command = (int(word) for word in lab.stdout.readline().split())
        assert command == lab.pid
        assert Path(f"/proc/{child}/comm").read_text() == "sleep\n"
        own = ["-U", "--preserve-credentials"] if user else []
        enter = ["nsenter", "-t", str(pid), *own, "-m", "-n"]
        listing = subprocess.run([*as_user, *enter, "ls", "/run/freepage"], capture_output=True, check=True)
        assert b"here.sock" in listing.stdout
        connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        place = f"/proc/{pid}/root/run/freepage/here.sock"
        subprocess.run([*as_user, sys.executable, "-c", connect, place], check=True)
        lab.stdin.close()
        assert lab.wait(60) == 0
    assert not Path(f"/proc/{child}").exists()


def test_a_failed_run_is_kept_with_both_qemus(folder: Path) -> None:
    words = ["run", "idle", "--memory", "512MiB", "--arm", "off", "--fault", "page-tail-lost", "--json"]
    with invoke.start([*words, "--keep", "failure", "--out", folder / "run"], feed=True) as process:
        (stop,) = [next(stops(process))]
        assert "the verdict on memory is 'fail'" in stop.why
        assert set(stop.pids) == {"source", "destination"}
        for side, status in (("source", "postmigrate"), ("destination", "paused")):
            assert qmp(stop.sockets[side, "QMP"], "query-status")["status"] == status
            command = Path(f"/proc/{stop.pids[side]}/cmdline").read_bytes()
            assert b"qemu-system-x86_64" in command
            uri = re.search(rf"libvirt of the {side} .*-c '([^']+)'", stop.text)
            assert uri is not None
            said = subprocess.run(["virsh", "-c", uri[1], "list"], capture_output=True, text=True, check=True)
            assert "guest" in said.stdout
            assert "VM status: paused" in pasted(stop.lines[side, "HMP"], "info status\n")
            assert status in pasted(stop.lines[side, "QMP"], "query-status\n")
            if shutil.which("gdb") is not None:
                threads = pasted(stop.lines[side, "gdb"], "info threads\ndetach\nquit\n")
                assert re.search(r"Thread .*qemu-system", threads), threads
        go_on(process)
        stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 1, stderr
    result = json.loads(stdout)
    assert [one["at"] for one in result["by_hand"]] == ["switch-over"]
    assert "; paused by hand: switch-over" in result["reason"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in stop.pids.values())


@pytest.mark.slow
def test_a_run_is_paused_at_moments_and_passes(folder: Path) -> None:
    """Both processes are stopped where QEMU would go on; where it waits, its monitors answer."""
    words: list[str | Path] = ["run", "churn", "--memory", "512MiB", "--json", "--out", folder / "run"]
    points = ("answer", "pass:2", "resumed")
    with invoke.start(
        [*words, *(word for one in points for word in ("--pause-at", one))], feed=True
    ) as process:
        seen = []
        for stop in stops(process):
            seen.append(stop.why)
            if "pass 2" in stop.why:
                assert {state(pid) for pid in stop.pids.values()} == {"T"}
            elif "answer" in stop.why:
                assert qmp(stop.sockets["source", "QMP"], "query-migrate")["status"] == "active"
            else:
                assert list(stop.pids) == ["destination"]
                assert qmp(stop.sockets["destination", "QMP"], "query-status")["status"] == "paused"
            go_on(process)
        assert process.stdout is not None
        stdout = process.stdout.read()
    assert process.returncode == 0, stdout
    assert [why.removeprefix("freepage: paused by hand at ") for why in seen] == [
        "answer",
        "pass 2",
        "resumed",
    ]
    result = json.loads(stdout)
    assert [one["at"] for one in result["by_hand"]] == list(points)
    assert result["guest"]["kernel_warnings"] == []


@pytest.mark.slow
def test_a_signal_and_the_end_of_the_input_let_a_run_go_on(folder: Path) -> None:
    words = ["run", "idle", "--memory", "512MiB", "--arm", "off", "--json", "--out", folder / "run"]
    with invoke.start([*words, "--pause-at", "start", "--keep", "always"], feed=True) as process:
        said = stops(process)
        first = next(said)
        assert list(first.pids) == ["source"]
        process.send_signal(signal.SIGTERM)
        second = next(said)
        assert "the verdict on memory is 'pass'" in second.why
        assert process.stdin is not None
        process.stdin.close()
        assert list(said) == []
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert [one["at"] for one in result["by_hand"]] == ["start", "switch-over"]
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    words_of = [event["data"]["after"] for event in events if event["kind"] == "goes-on"]
    assert words_of == ["a signal", "the end of the input"]


@pytest.mark.slow
def test_nothing_is_waited_for_without_a_standard_input(folder: Path) -> None:
    words = ["run", "idle", "--memory", "512MiB", "--arm", "off", "--keep", "always"]
    done = invoke.invoke([*words, "--out", folder / "run"], timeout=200)
    assert done.exit_code == 0, str(done)
    assert "is at its end, so nothing is waited for" in done.stderr


@pytest.mark.slow
def test_enter_on_a_terminal(folder: Path) -> None:
    controller, terminal = os.openpty()
    words = ["run", "idle", "--memory", "512MiB", "--arm", "off", "--keep", "always", "--out", folder / "run"]
    with subprocess.Popen(
        invoke.command_line(words), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as process:
        os.close(terminal)
        said = b""
        pressed = False
        while True:
            try:
                data = os.read(controller, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                break
            said += data
            if not pressed and b"press Enter" in said:
                pressed = True
                os.write(controller, b"\n")
    os.close(controller)
    assert process.returncode == 0, said.decode(errors="replace")
    assert pressed
    assert b"paused by hand: switch-over" in said
