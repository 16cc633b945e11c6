# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: what is inside stays inside, what ends ends, and nothing is left of it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import psutil
import pytest

from harness.events import Deadline
from harness.testing import LabFixture
from tests.vm.conftest import LONGEST

_PR_SET_CHILD_SUBREAPER = 36

#: Somebody whose processes have no rights.
NOBODY = 65534


class Scene:
    """A program of :mod:`tests.vm.support.scenes` that runs."""

    def __init__(self, *arguments: str, cwd: Path, **options: Any) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "tests.vm.support.scenes", *arguments],
            cwd=cwd,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options},
            text=True,
        )

    def hear(self) -> Any:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> tuple[int, list[Any]]:
        """Its exit status, and what else it said."""
        said, _ = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, [json.loads(line) for line in said.splitlines()]


@pytest.fixture
def scene(repository: Path) -> Iterator[Callable[..., Scene]]:
    started: list[Scene] = []

    def start(*arguments: str, **options: Any) -> Scene:
        started.append(Scene(*arguments, **{"cwd": repository, **options}))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails if the test leaves a process, a mount, a link or a file in memory.

    Whatever loses its parent becomes a child of this process, so that nothing can hide.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = surroundings()
    yield
    alive = survivors()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for process in alive:
        process.kill()  # or the next test would find it too
    assert not alive
    assert surroundings() == before


def survivors() -> list[psutil.Process]:
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)
    return list(alive)


def surroundings() -> dict[str, object]:
    # The kernel numbers mounts; only what is mounted where is compared.
    mounts = [line.split()[3:5] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "mounts": sorted(mounts),
        "links": sorted(os.listdir("/sys/class/net")),
        "room": Path("/run/freepage").exists(),
    }


def test_inside_is_elsewhere(scene: Callable[..., Scene]) -> None:
    code, (seen,) = scene("status", "0").end()
    assert code == 0
    assert seen["inside"]
    assert seen["links"] == ["lo"]
    assert seen["pid"] != os.getpid()
    assert seen["uid"] == os.geteuid()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 77])
def test_exit_statuses_are_passed_on(scene: Callable[..., Scene], code: int) -> None:
    assert scene("status", str(code)).end()[0] == code


def test_a_crash_inside_is_an_error_that_is_no_verdict(scene: Callable[..., Scene]) -> None:
    code, (said,) = scene("die", str(int(signal.SIGSEGV))).end()
    assert code == 3
    assert "SIGSEGV" in said["error"]


def test_signals_arrive_once_each(scene: Callable[..., Scene]) -> None:
    it = scene("signals")
    assert it.hear() == {"ready": True}
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
        it.process.send_signal(number)
        assert it.hear() == {"signal": number.name}
    it.process.send_signal(signal.SIGTERM)
    assert it.end() == (7, [{"signal": "SIGTERM"}])


def test_orphans_are_reaped(scene: Callable[..., Scene]) -> None:
    assert scene("orphans").end() == (0, [{"reaped": True}])


def test_a_terminal_works_and_ctrl_c_comes_once(scene: Callable[..., Scene]) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    it = scene("terminal", stdin=theirs, preexec_fn=take_terminal)
    os.close(theirs)
    assert it.hear() == {"terminal": True}
    os.write(ours, b"typed\n")
    assert it.hear() == {"line": "typed"}
    assert it.hear() == {"ready": True}
    os.write(ours, b"\x03")
    assert it.hear() == {"signal": "SIGINT"}
    # Signals are handed on in order: a second SIGINT would come before this.
    it.process.send_signal(signal.SIGTERM)
    assert it.end() == (7, [{"signal": "SIGTERM"}])
    os.close(ours)


def test_what_is_kept_stays_visible_and_the_rest_of_memory_does_not(scene: Callable[..., Scene]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as kept, tempfile.TemporaryDirectory(dir="/dev/shm"):
        code, (seen,) = scene("keep", kept).end()
        assert code == 0
        assert seen["private"] == [kept]
        written = Path(kept, "written")
        assert written.read_text() == "inside"
        assert written.stat().st_uid == os.geteuid()


def check_hosts(seen: dict[str, Any]) -> None:
    assert seen["names"] == ["source", "destination"]
    # libvirt refuses to migrate to a host with its own UUID.
    assert len(set(seen["uuids"])) == 2
    assert len(set(seen["uris"])) == 2


@pytest.mark.parametrize("nic", ["", "relay"], ids=["default-nic", "relay"])
def test_two_hosts(scene: Callable[..., Scene], leaves_nothing: None, nic: str) -> None:
    code, (_, _, seen) = scene("hosts", "0", nic).end()
    assert code == 0
    check_hosts(seen)
    if nic:
        assert seen["nics"] == ["relay", "relay"]


def test_the_wire_is_as_slow_as_asked(scene: Callable[..., Scene]) -> None:
    code, (_, _, seen) = scene("hosts", str(16 << 20)).end()
    assert code == 0
    # 8 MiB at 16 MiB/s, less what the bucket holds at first.
    assert seen["seconds"] > 0.45


def test_labs_do_not_disturb_each_other(scene: Callable[..., Scene], leaves_nothing: None) -> None:
    for it in [scene("hosts") for _ in range(3)]:
        code, (_, _, seen) = it.end()
        assert code == 0
        check_hosts(seen)


def test_a_daemon_that_dies_is_a_lost_host(scene: Callable[..., Scene]) -> None:
    code, (seen,) = scene("daemon").end()
    assert code == 0
    assert seen["error"] == "HostLost"
    assert "the source's libvirt daemon is gone" in seen["text"]


def test_an_ordinary_user_has_a_lab_too(scene: Callable[..., Scene], repository: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("every other test here shows it")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        for package in ("harness", "tests"):
            shutil.copytree(repository / package, home / package)
        shutil.chown(home, NOBODY, NOBODY)
        person = {
            "cwd": home,
            "user": NOBODY,
            "group": NOBODY,
            "extra_groups": [],
            "env": {"HOME": name, "PATH": "/usr/bin:/bin", "PYTHONPATH": name},
        }
        try:
            check = subprocess.run([sys.executable, "-c", "import libvirt"], **person, check=False)  # type: ignore[call-overload]
            usable = check.returncode == 0
        except PermissionError:
            usable = False
        if not usable:
            pytest.skip(f"{sys.executable} is not for other users")
        code, (_, _, seen) = scene("hosts", **person).end()
        assert code == 0
        check_hosts(seen)
        assert all("session" in uri for uri in seen["uris"])


def test_sigkill_at_any_moment_leaves_nothing(scene: Callable[..., Scene], leaves_nothing: None) -> None:
    """From before the first namespace on, and from there until after the hosts have come up."""
    for step in range(32):
        it = scene("hosts", "0", "", "linger")
        if step >= 16:
            assert it.hear() == {"stage": "inside"}
        time.sleep(step % 16 * 0.02)  # any moment will do, that is the point
        it.process.kill()
        it.process.wait()
        assert not survivors(), f"step {step}"


@pytest.mark.parametrize("depth", [1, 2, 3], ids=["porter", "init", "worker"])
def test_sigkill_of_one_of_them_ends_all(
    scene: Callable[..., Scene], leaves_nothing: None, depth: int
) -> None:
    it = scene("signals")
    assert it.hear() == {"ready": True}
    victim = psutil.Process(it.process.pid)
    for _ in range(depth):
        (victim,) = victim.children()
    victim.kill()
    code, said = it.end()
    assert code == 3
    assert "SIGKILL" in said[0]["error"]


def test_a_qemu_stopped_and_continued_in_its_migration(leaves_nothing: None, lab: LabFixture) -> None:
    """Behind libvirt's back, again and again."""
    guest = lab.boot("idle", memory="256MiB", arm="off", set={"migration.bandwidth": "16MiB/s"})
    running, paused = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED
    ram = guest.memory_file("source")
    states: list[int] = []
    with ram.open("rb") as image, guest.migration() as migration:
        size = os.fstat(image.fileno()).st_size
        migration.begin(hold=["pass"])
        with migration.held("pass"):
            for _ in range(3):
                for command, event, state in (("stop", "STOP", paused), ("cont", "RESUME", running)):
                    before = guest.events.emit("test", command=command)
                    migration.monitor("source").execute(command)
                    guest.events.wait(
                        lambda seen, name=event: seen.kind == name, Deadline(60, event), after=before.seq
                    )
                    states.append(wait_state(guest.domain, state))
            meanwhile = migration.running
        domain = migration.switch_over().domain
        # Its QEMU has ended and libvirt has removed the file; what is open stays.
        readable = sum(len(block) for block in iter(lambda: image.read(1 << 24), b""))
        at_switch_over = domain.state()[0]
        migration.resume()
        assert guest.call("ping", timeout=60) is not None
    # libvirt takes note of each, and neither resumes the guest nor gives the migration up.
    assert states == [paused, running] * 3
    assert meanwhile
    assert (at_switch_over, domain.state()[0]) == (paused, running)
    assert (ram.exists(), readable == size) == (False, True)


def wait_state(domain: libvirt.virDomain, wanted: int) -> int:
    """What libvirt says of the domain once it has taken note; it gets the same event on its own monitor."""
    until = time.monotonic() + 10
    while domain.state()[0] != wanted and time.monotonic() < until:
        time.sleep(0.005)
    return int(domain.state()[0])


def test_what_forbids_a_lab_is_told_with_a_way_out(scene: Callable[..., Scene]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a user namespace in which namespaces are used up")
    limit = Path("/proc/sys/user/max_net_namespaces")
    unshare = shutil.which("unshare")
    if unshare is None or not limit.exists():
        pytest.skip("no unshare")
    command = [
        unshare,
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'echo 0 >{limit} && exec "$@"',
        "sh",
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, sys.executable, "-m", "tests.vm.support.scenes", "status", "0"],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    assert done.returncode == 3, done
    said = json.loads(done.stdout)
    assert "cannot make the lab's namespaces" in said["error"]
    assert said["hint"]
