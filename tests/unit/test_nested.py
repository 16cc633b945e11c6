# SPDX-License-Identifier: GPL-2.0-or-later
"""The nested machine without booting one: what travels, what QEMU and the machine are told, what counts."""

from __future__ import annotations

import base64
import lzma
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import accel
from harness.cli import inside as agent_module
from harness.errors import GuestLost, InputError
from harness.events import EventStream
from harness.nested import machine as machine_module
from harness.nested.keyboard import Keyboard
from harness.nested.machine import (
    MachineSpec,
    NestedMachine,
    SharedFolder,
    Tap,
    machine_command,
    start_script,
)
from harness.nested.parts import Parts, unpacked_kernel
from harness.nested.wire import LONGEST_MESSAGE, LineBuffer, MachineWireError, encode, pack_message, unpack
from harness.report.gravity import worst
from harness.run.several import run_folders
from harness.scenario.load import Scenario
from harness.terminal import raw_mode
from harness.toolchain.sources import installation

PARTS = Parts(
    Path("/usr/bin/qemu"), "7.2", Path("/c/vmlinux"), "6.1", Path("/c/initrd.cpio"), Path("/v/init")
)


# --- the wire


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.integers(1, 50))
def test_messages_arrive_whole_however_they_are_cut(messages: list[dict[str, Any]], size: int) -> None:
    data = b"".join(encode(message) for message in messages)
    lines = LineBuffer()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [message for piece in pieces for message in lines.feed(piece)] == messages


@given(st.binary())
def test_bytes_travel(data: bytes) -> None:
    assert unpack(pack_message(data)) == data


@pytest.mark.parametrize("data", [b"garbage\n", b"[1]\n", b"\xff\xfe\n", b"1\n"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MachineWireError):
        list(LineBuffer().feed(data))


def test_a_line_without_an_end_is_refused_before_it_fills_memory() -> None:
    lines = LineBuffer()
    with pytest.raises(MachineWireError):
        for _ in range(LONGEST_MESSAGE // 65536 + 2):
            list(lines.feed(b"x" * 65536))


def test_what_is_no_base64_is_refused() -> None:
    with pytest.raises(MachineWireError):
        unpack("%%%")


# --- what QEMU and the machine are told


def options(words: list[str], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


@pytest.mark.parametrize(
    ("chain", "accelerator", "cpu"),
    [("kvm-in-tcg", "tcg,thread=multi", "EPYC,+svm,+npt"), ("kvm-in-kvm", "kvm", "host")],
)
def test_the_chain_decides_the_cpu(chain: Any, accelerator: str, cpu: str) -> None:
    words = machine_command(PARTS, MachineSpec(chain, 3 << 30), 7, 8, 9)
    assert options(words, "-accel") == [accelerator]
    assert options(words, "-cpu") == [cpu]
    assert options(words, "-m") == ["3072M"]


def test_the_root_is_read_only_and_a_share_may_be_written() -> None:
    words = machine_command(
        PARTS, MachineSpec("kvm-in-tcg", 1 << 30, (SharedFolder(Path("/runs,1")),)), 7, 8, 9
    )
    root, share = options(words, "-fsdev")
    assert ",readonly=on" in root
    assert ",readonly=on" not in share
    assert "path=/runs,,1," in share
    assert "-no-reboot" in words  # a panic is the end, not a new start


def test_the_script_is_for_a_shell_whatever_a_folder_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "it's $(a) `folder`"
    script = start_script([SharedFolder(odd), SharedFolder(Path("/ro"), writable=False)])
    mounts = [shlex.split(line) for line in script.splitlines() if line.startswith("mount ")]
    assert [words[-1] for words in mounts] == [str(odd), "/ro"]
    assert [words[words.index("-o") + 1].split(",")[0] for words in mounts] == ["rw", "ro"]
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)


def test_a_machine_has_no_network_unless_it_is_given_one() -> None:
    spec = MachineSpec("kvm-in-tcg", 1 << 30)
    words = machine_command(PARTS, spec, 7, 8, 9)
    assert not options(words, "-netdev")
    assert not any("net-pci" in word for word in options(words, "-device"))
    words = machine_command(PARTS, replace(spec, tap=Tap(10, "52:54:00:78:00:0b")), 7, 8, 9)
    assert options(words, "-netdev") == ["tap,id=net,fd=10"]
    assert any(word.startswith("virtio-net-pci,netdev=net,mac=52:") for word in options(words, "-device"))


def test_services_start_between_the_shares_and_the_agent() -> None:
    script = start_script([SharedFolder(Path("/keys"), writable=False)], ["sshd -f /keys/sshd"]).splitlines()
    (service,) = (at for at, line in enumerate(script) if line == "sshd -f /keys/sshd")
    assert "set -e" in script[:service]
    assert any(line.startswith("mount ") for line in script[:service])
    assert not any(line.startswith("mount ") for line in script[service:])
    assert script[-1].endswith("harness.cli.inside")


def test_the_machine_runs_the_code_that_made_it() -> None:
    script = start_script([SharedFolder(Path("/keys"), writable=False)]).splitlines()
    assert f"export PYTHONPATH={installation()}" in script


def test_the_kernel_is_told_the_script_in_one_word() -> None:
    text = machine_module.kernel_arguments(
        PARTS, MachineSpec("kvm-in-tcg", 1 << 30, (SharedFolder(Path("/a b")),))
    )
    found = re.search(r"virtme\.exec=`([^`]*)`", text)
    assert found is not None
    assert base64.b64decode(found[1]).decode() == start_script([SharedFolder(Path("/a b"))])
    assert "panic=-1" in text.split()


def test_the_first_program_is_for_a_shell() -> None:
    init = Path(machine_module.__file__).with_name("init.sh")
    subprocess.run(["/bin/sh", "-n", str(init)], check=True)


# --- the kernel


def bzimage(payload: bytes, setup_sectors: int = 3) -> bytes:
    head = bytearray((setup_sectors + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 64, len(payload))
    return bytes(head) + bytes(64) + payload + b"rest"


def test_a_kernel_is_unpacked_so_that_the_machine_need_not() -> None:
    kernel = b"\x7fELF" + os.urandom(5000)
    assert unpacked_kernel(bzimage(lzma.compress(kernel) + struct.pack("<I", len(kernel)))) == kernel


@pytest.mark.parametrize(
    "image", [bzimage(b"not compressed like that"), bzimage(lzma.compress(b"no ELF")), bytes(4096)]
)
def test_a_kernel_that_cannot_be_unpacked_is_left_as_it_is(image: bytes) -> None:
    assert unpacked_kernel(image) is None


# --- a machine that is only an agent, at the other end of a socket


class Machine(NestedMachine):
    """Talks to whoever is at the other end."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(PARTS, MachineSpec("kvm-in-tcg", 1 << 30), EventStream())
        self._control = control
        self._console = os.memfd_create("console")
        # A backtrace follows, which is longer than what is shown of a console.
        os.write(self._console, b"one\r\n[ 2.1] Kernel panic - not syncing: x\r\n" + b"trace\r\n" * 50)

    def _status(self) -> str:
        return ""


@pytest.fixture
def ends() -> Iterator[tuple[Machine, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Machine(ours), theirs


def answer(end: socket.socket, *messages: dict[str, object]) -> None:
    for message in messages:
        end.sendall(encode(message))


def test_output_and_status_come_through(ends: tuple[Machine, socket.socket]) -> None:
    machine, end = ends
    out, err = bytearray(), bytearray()
    answer(
        end,
        {"alive": 1},
        {"output": 1, "to": "out", "data": pack_message(b"{}")},
        {"output": 1, "to": "err", "data": pack_message(b"ok")},
        {"ended": 1, "status": 4},
    )
    assert machine.run(["x"], cwd=Path("/"), out=out.extend, err=err.extend) == 4
    assert (bytes(out), bytes(err)) == (b"{}", b"ok")


def test_a_machine_that_ends_in_mid_command_is_lost_whatever_it_had_said(
    ends: tuple[Machine, socket.socket],
) -> None:
    machine, end = ends
    answer(end, {"output": 1, "to": "out", "data": pack_message(b'{"verdict": "pass"}')})
    end.shutdown(socket.SHUT_WR)
    with pytest.raises(GuestLost) as caught:
        machine.run(["x"], cwd=Path("/"), out=lambda _: None)
    assert caught.value.exit_code == 3
    assert "its kernel has panicked: [ 2.1] Kernel panic - not syncing: x" in caught.value.message
    assert caught.value.last_lines[-1] == "trace"


def test_a_machine_that_says_nothing_hangs(
    ends: tuple[Machine, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "SILENCE_SECONDS", 0.05)
    machine, _ = ends
    with pytest.raises(GuestLost, match="not within"):
        machine.run(["x"], cwd=Path("/"))


def test_a_confused_agent_is_an_error(ends: tuple[Machine, socket.socket]) -> None:
    machine, end = ends
    end.sendall(b"Segmentation fault\n")
    with pytest.raises(GuestLost, match="confused"):
        machine.run(["x"], cwd=Path("/"))


def test_a_machine_without_kvm_is_not_used(ends: tuple[Machine, socket.socket]) -> None:
    machine, end = ends
    answer(end, {"hello": {"kvm": "there is no /dev/kvm", "uptime": 3}})
    with pytest.raises(GuestLost, match="there is no /dev/kvm"):
        machine._hello(machine_module.Deadline(5, "hello"))


# --- the agent itself, with a command of the test's


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A real agent in a forked process of its own."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            import harness.cli

            harness.cli.main = command  # type: ignore[assignment]
            agent_module.MachineAgent(theirs.fileno()).serve()
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        yield Machine(ours)
    os.waitpid(pid, 0)


def command() -> None:
    # pytest has put its own in their place.
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(n), mode) for n, mode in enumerate("rww"))
    word = sys.argv[1]
    if word == "print":
        print("cwd", os.getcwd(), os.environ["FREEPAGE_CHAIN"], flush=True)
        print(sys.stdin.read() == "", file=sys.stderr)
        sys.exit(7)
    if word == "file":
        print(Path(sys.argv[2]).read_text(), end="")
        sys.exit(0)
    if word == "much":
        sys.stdout.write("x" * 3_000_000)
        sys.exit(0)
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "cat":
        while data := os.read(0, 65536):
            os.write(1, data.upper())
        sys.exit(0)
    if word == "terminal":
        # Not by print(), which this signal may interrupt.
        signal.signal(
            signal.SIGWINCH, lambda *_: os.write(1, "now {} {}\n".format(*termios.tcgetwinsize(0)).encode())
        )
        print(*map(os.isatty, range(3)), *termios.tcgetwinsize(0), flush=True)
        try:
            while data := os.read(0, 100):
                print("read", data, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(9)
    if word == "wait":
        try:
            print("waiting", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            sys.exit(130)
    raise ValueError(word)


def test_commands_run_one_after_the_other(agent: Machine, tmp_path: Path) -> None:
    out, err = bytearray(), bytearray()
    sinks = {"out": out.extend, "err": err.extend}
    assert agent.run(["print"], cwd=tmp_path, **sinks) == 7
    assert bytes(out).decode() == f"cwd {tmp_path} kvm-in-tcg\n"
    assert bytes(err) == b"True\n"
    out.clear()
    text = "name: x\n# \u00e9\n"
    assert (
        agent.run(
            ["file", str(tmp_path / "a" / "b")],
            cwd=tmp_path,
            files={str(tmp_path / "a" / "b"): text},
            **sinks,
        )
        == 0
    )
    assert bytes(out).decode() == text
    out.clear()
    assert agent.run(["much"], cwd=tmp_path, **sinks) == 0
    assert len(out) == 3_000_000


def test_a_command_that_is_killed_or_crashes_has_a_status_of_its_own(agent: Machine, tmp_path: Path) -> None:
    err = bytearray()
    assert agent.run(["die"], cwd=tmp_path, err=err.extend) == 137
    assert agent.run(["bug"], cwd=tmp_path, err=err.extend) == 3
    assert b"ValueError: bug" in err


def test_ctrl_c_is_handed_on_and_awaited(agent: Machine, tmp_path: Path) -> None:
    def seen(data: bytes) -> None:
        if b"waiting" in data:
            raise KeyboardInterrupt

    assert agent.run(["wait"], cwd=tmp_path, out=seen) == 130


def test_what_is_piped_into_a_command_reaches_it_whole(agent: Machine, tmp_path: Path) -> None:
    text, out = os.urandom(1_000_000).hex().encode(), bytearray()
    reading, writing = os.pipe()
    feeder = threading.Thread(target=_feed, args=(writing, text))
    feeder.start()
    assert agent.run(["cat"], cwd=tmp_path, keyboard=Keyboard(reading), out=out.extend) == 0
    feeder.join()
    os.close(reading)
    assert bytes(out) == text.upper()


def _feed(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def test_a_command_has_the_terminal_that_we_have(agent: Machine, tmp_path: Path) -> None:
    """Size, changes of it, and Ctrl-C, which is a signal in there."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 101))
    said = bytearray()
    # What is typed, as answers to what is said.
    script = iter(
        [
            (b"True True True 33 101", lambda: os.write(ours, b"hello\n")),
            (b"read b'hello", lambda: termios.tcsetwinsize(theirs, (20, 70))),
            (b"now 20 70", lambda: os.write(ours, b"\x03")),
        ]
    )
    following = [next(script)]

    def out(data: bytes) -> None:
        said.extend(data)
        if following and following[0][0] in said:
            following[0][1]()
            following[:] = [step] if (step := next(script, None)) else []

    with raw_mode(theirs):
        assert agent.run(["terminal"], cwd=tmp_path, keyboard=Keyboard(theirs), out=out) == 9, said
    assert not following, bytes(said)
    assert b"interrupted" in said
    os.close(ours)
    os.close(theirs)


# --- accelerators by name


def test_kvm_in_a_nested_machine_has_the_name_of_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accel.CHAIN_VARIABLE, raising=False)
    assert (accel.full_name("kvm"), accel.full_name("tcg")) == ("kvm", "tcg")
    monkeypatch.setenv(accel.CHAIN_VARIABLE, "kvm-in-tcg")
    assert (accel.full_name("kvm"), accel.full_name("tcg")) == ("kvm-in-tcg", "tcg")
    monkeypatch.setenv(accel.CHAIN_VARIABLE, "nonsense")
    assert accel.full_name("kvm") == "kvm"


# --- several runs


@pytest.mark.parametrize(
    ("statuses", "counts"),
    [([0, 0], 0), ([0, 4], 4), ([4, 1], 1), ([1, 3, 0], 3), ([0, 130], 130), ([2], 2)],
)
def test_the_gravest_status_counts(statuses: list[int], counts: int) -> None:
    assert worst(statuses) == counts


def test_each_run_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    twice = [Scenario(name="a"), Scenario(name="a"), Scenario(name="b", arm="off")]
    assert [path.name for path in run_folders(twice, tmp_path / "out")] == ["a-info", "a-info-2", "b-off"]
    assert run_folders([Scenario(name="a")], tmp_path / "x" / "y") == [tmp_path / "x" / "y"]
    assert run_folders(twice, None)[0].parent == tmp_path / "runs"
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        run_folders(twice, tmp_path / "there")


def test_threads_do_not_enter_a_machine() -> None:
    caught: list[BaseException] = []

    def enter() -> None:
        try:
            Machine(socket.socket()).__enter__()
        except AssertionError as error:
            caught.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert caught
