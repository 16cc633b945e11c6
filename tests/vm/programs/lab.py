# SPDX-License-Identifier: GPL-2.0-or-later
"""Things to do in a lab, for its tests; prints JSON, a line each.

python -m tests.vm.programs.lab SCENE [ARGUMENT ...]
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
from typing import Any

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


def hold(qemu: str = "") -> int:
    """QEMU is stopped and continued behind libvirt's back, again and again, while it migrates."""
    import tempfile

    from harness.hosts.this_machine import command_start
    from harness.plan.here import LabMachines
    from harness.plan.plan import Tools
    from harness.plan.prepare import load, prepare
    from harness.report.folder import RunFolder
    from harness.run.boot import ready_guest

    path = Path(qemu) if qemu else None
    settings = ["guest.memory=256MiB", "arm=off"]
    scenario, tools = load("idle", settings, Tools(path, path))
    events = EventStream()
    plan = prepare(scenario, tools, events, command_start(), LabMachines())

    def inside() -> int:
        with tempfile.TemporaryDirectory() as name:
            folder = RunFolder.create(Path(name, "run"), "hold", "off")
            with ready_guest(plan, folder, events) as here:
                say(**move_with_stops(here))
        return 0

    return enter(inside)


def move_with_stops(here: Any) -> dict[str, object]:
    import libvirt

    from harness.guest.domain import destination_xml

    monitor = Qmp(here.guest.monitor_socket(here.lab.source))
    xml = here.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    here.guest.arrive(here.lab.destination)
    parameters = {
        "migrate_uri": here.lab.destination.migrate_uri,
        "destination_xml": destination_xml(xml, here.guest.spec(here.lab.destination)),
        "bandwidth": 16,
    }
    (ram,) = here.lab.source.memory_dir.rglob("pc.ram")
    states: list[int] = []
    moved: list[Any] = []

    def migrate() -> None:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PAUSED
        # On a connection of its own: other calls of a client may wait for one that blocks.
        domain = here.lab.source.open().lookupByUUID(here.domain.UUID())
        moved.append(domain.migrate3(here.lab.destination.connect(), parameters, flags))

    with ram.open("rb") as image:
        size = os.fstat(image.fileno()).st_size
        thread = threading.Thread(target=migrate)
        thread.start()
        monitor.wait_for("MIGRATION_PASS")
        for _ in range(3):
            for command, event in (("stop", "STOP"), ("cont", "RESUME")):
                monitor.execute(command)
                monitor.wait_for(event)
                states.append(wait_state(here.domain, event))
        meanwhile = thread.is_alive()
        thread.join()
        # Its QEMU has ended and libvirt has removed the file; what is open stays.
        image.seek(0)
        readable = sum(len(block) for block in iter(lambda: image.read(1 << 24), b""))
    (domain,) = moved
    paused = domain.state()[0]
    domain.resume()
    deadline_answer = here.guest.control.call("ping", deadline=_minute())
    return {
        "states": states,
        "meanwhile": meanwhile,
        "paused": paused,
        "running": domain.state()[0],
        "exists": ram.exists(),
        "complete": readable == size,
        "answered": deadline_answer is not None,
    }


def _minute() -> Any:
    from harness.events import Deadline

    return Deadline(60, "the guest's answer")


def wait_state(domain: Any, event: str) -> int:
    """What libvirt says of the domain once it has taken note; it gets the same event on its own monitor."""
    wanted = 3 if event == "STOP" else 1
    until = time.monotonic() + 10
    while domain.state()[0] != wanted and time.monotonic() < until:
        time.sleep(0.005)
    return int(domain.state()[0])


class Qmp:
    """The least that speaks QMP."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("r")
        self._events: list[str] = []
        self._file.readline()
        self.execute("qmp_capabilities")
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])

    def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._file.readline())
        if "event" in message:
            self._events.append(message["event"])
        return message

    def execute(self, command: str, **arguments: object) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._read()
            if "return" in answer:
                return
            assert "error" not in answer, answer

    def wait_for(self, name: str) -> None:
        while name not in self._events:
            self._read()
        self._events.remove(name)


SCENES: dict[str, Callable[..., int]] = {
    scene.__name__: scene for scene in (status, die, signals, orphans, terminal, keep, hosts, daemon)
}


def main(name: str, *arguments: str) -> int:
    """Do it in a lab; says what kept it from one."""
    if name == "hold":
        return hold(*arguments)
    kept: Iterable[Path] = [Path(arguments[0])] if name == "keep" else ()
    try:
        return enter(lambda: SCENES[name](*arguments), keep=kept)
    except FreepageError as error:
        say(error=error.message, hint=error.hint)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
