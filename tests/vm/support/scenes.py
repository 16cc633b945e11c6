# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab's own tests do in a lab; prints JSON, a line each.

python -m tests.vm.support.scenes SCENE [ARGUMENT ...]

A program, because its process is what is tested: it is killed at any moment, gets
signals and a terminal, is another user's, or is forbidden to make namespaces.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import FreepageError
from harness.events import EventStream
from harness.hosts import netns
from harness.hosts.enter import enter, inside_lab
from harness.hosts.lab import Lab


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def status(code: str) -> int:
    """Where this is, and an exit status."""
    say(inside=inside_lab(), pid=os.getpid(), uid=os.geteuid(), links=sorted(os.listdir("/sys/class/net")))
    return int(code)


def die(number: str) -> int:
    """Ends by a signal."""
    os.kill(os.getpid(), int(number))
    signal.pause()
    return 0


def signals() -> int:
    """Counts signals until SIGTERM."""
    wanted = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    say(ready=True)
    while True:
        number = signal.sigwait(wanted)
        say(signal=signal.Signals(number).name)
        if number == signal.SIGTERM:
            return 7


def orphans() -> int:
    """Leaves a grandchild behind, which PID 1 has to reap."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.wait()
    pid = int(os.read(reader, 20))
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)  # a poll, since nobody tells when somebody else's child is reaped
    say(reaped=True)
    return 0


def terminal() -> int:
    """Reads a line from the terminal, then counts signals."""
    say(terminal=os.isatty(0))
    say(line=input())
    return signals()


def keep(path: str) -> int:
    """Writes into a folder that was to stay visible."""
    Path(path, "written").write_text("inside")
    say(private=[str(entry) for entry in Path("/dev/shm").iterdir()])
    return 0


def hosts(bandwidth: str = "0", relay: str = "", linger: str = "") -> int:
    """Both hosts up: what they are, and how fast the wire is; with ``linger``, for ever."""
    if relay:
        netns.can_open_tun = lambda: False
    say(stage="inside")
    limit = int(bandwidth) or None
    with Lab(EventStream(), limit, memory=64 << 20) as lab:
        say(stage="entered")
        connections = [host.connect() for host in lab.hosts]
        say(
            uris=[connection.getURI() for connection in connections],
            names=[connection.getHostname() for connection in connections],
            uuids=[json_uuid(connection.getCapabilities()) for connection in connections],
            nics=["relay" if host.nic.tap is None else "tap" for host in lab.hosts],
            seconds=transfer(lab, 8 << 20),
        )
        if linger:
            signal.pause()
    return 0


def json_uuid(capabilities: str) -> str:
    return capabilities.partition("<uuid>")[2].partition("</uuid>")[0]


def transfer(lab: Lab, size: int) -> float:
    """Seconds that ``size`` bytes take from the source to the destination, over the migration wire."""
    listener = lab.destination.space.run(lambda: socket.create_server((lab.destination.address, 0)))
    port = listener.getsockname()[1]

    def send() -> None:
        with lab.source.space.run(
            lambda: socket.create_connection((lab.destination.address, port))
        ) as sender:
            sender.sendall(bytes(size))

    began = time.monotonic()
    thread = threading.Thread(target=send)
    thread.start()
    with listener, listener.accept()[0] as receiver:
        while receiver.recv(1 << 20):
            pass
    thread.join()
    return time.monotonic() - began


def daemon() -> int:
    """A daemon that dies is a lost host, with its last words; and one that is not there from the start."""
    events = EventStream()
    with Lab(events, memory=64 << 20) as lab:
        lab.source.connect()
        pid = int((lab.source.runtime_dir / "libvirt" / "daemon.pid").read_text())
        ended = threading.Event()
        events.subscribe(lambda event: ended.set() if event.kind == "host-ended" else None)
        os.kill(pid, signal.SIGKILL)
        assert ended.wait(30)
        try:
            lab.source.check()
        except FreepageError as error:
            say(error=type(error).__name__, text=error.render())
        lab.destination.check()
        lab.destination.connect().getHostname()
    return 0


SCENES: dict[str, Callable[..., int]] = {
    scene.__name__: scene for scene in (status, die, signals, orphans, terminal, keep, hosts, daemon)
}


def main(name: str, *arguments: str) -> int:
    """Do it in a lab; says what kept it from one."""
    kept: Iterable[Path] = [Path(arguments[0])] if name == "keep" else ()
    try:
        return enter(lambda: SCENES[name](*arguments), keep=kept)
    except FreepageError as error:
        say(error=error.message, hint=error.hint)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
