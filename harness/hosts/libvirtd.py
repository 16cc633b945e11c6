# SPDX-License-Identifier: GPL-2.0-or-later
"""One libvirt daemon in a host's namespaces: its folders, configuration, start and last words.

The socket is ours: it listens before the daemon exists and is handed over (as
systemd would), so that a client may connect at once and waits in the socket's
queue, not in a loop of attempts.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.hosts import kernel, netns
from harness.hosts.kernel import Mount
from harness.hosts.space import Space
from harness.toolchain.system_packages import how_to_install

#: An ordinary user's daemon cannot be anybody else, and fails if it is told to.
_ROOT_CONFIG: Final = """\
user = "root"
group = "root"
"""

#: Folders of a host, by the place at which a daemon of root's looks for them.
_PLACES: Final = {
    "etc": Path("/etc/libvirt"),
    "lib": Path("/var/lib/libvirt"),
    "cache": Path("/var/cache/libvirt"),
    "log": Path("/var/log/libvirt"),
    "run": Path("/run/libvirt"),
}

#: The same for a daemon of an ordinary user's, which is told by its environment.
_VARIABLES: Final = {
    "etc": "XDG_CONFIG_HOME",
    "lib": "XDG_DATA_HOME",
    "cache": "XDG_CACHE_HOME",
    "run": "XDG_RUNTIME_DIR",
}

_PROGRAM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin")
_DRIVER_FOLDERS: Final = (
    f"/usr/lib/{os.uname().machine}-linux-gnu/libvirt/connection-driver",
    "/usr/lib64/libvirt/connection-driver",
    "/usr/lib/libvirt/connection-driver",
)

#: Puts the listening socket, given as standard input, where a service manager would, and becomes the daemon.
_HAND_OVER: Final = 'LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null'

_DAEMON_CONFIG: Final = """\
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
# A guest held at switch-over, or a stopped client, is no dead connection.
keepalive_interval = -1
log_outputs = "3:file:{logs}/daemon.log"
audit_level = 0
"""

#: Below a daemon's folder: what a host shows in an encrypted migration, if there is anything.
CERTIFICATES: Final = "certificates"

#: Below a daemon's folder: where huge pages are mounted, if the host has them.
HUGEPAGES: Final = "hugepages"

_QEMU_CONFIG: Final = """\
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
memory_backing_dir = "{memory}"
keepalive_interval = -1
# The outside walk and the tests read guest memory and dumps; nothing else runs in a lab.
seccomp_sandbox = 0
set_process_name = 0
"""


@dataclass(frozen=True, slots=True)
class Program:
    """The daemon that this machine has: ``libvirtd``, or ``virtqemud`` where it is modular."""

    path: Path
    driver: Path

    @property
    def name(self) -> str:
        """The daemon's name, after which its configuration and socket are named."""
        return self.path.name


def find_libvirt() -> Program:
    """The daemon to start, or an error that says what to install."""
    search = os.pathsep.join([*_PROGRAM_FOLDERS, os.environ.get("PATH", "")])
    for name in ("libvirtd", "virtqemud"):
        found = shutil.which(name, path=search)
        if found is not None:
            break
    else:
        raise MachineryError(
            "no libvirt daemon: neither libvirtd nor virtqemud is installed",
            hint=how_to_install("libvirt-daemon-driver-qemu", "libvirt-daemon-system"),
        )
    drivers = [Path(folder, "libvirt_driver_qemu.so") for folder in _DRIVER_FOLDERS]
    driver = next((path for path in drivers if path.exists()), None)
    # Mounted over in a lab of root's, so they must be there; /run is the lab's own.
    places = [_PLACES[name] for name in ("etc", "lib", "cache", "log")] if os.geteuid() == 0 else []
    missing = [str(path) for path in places if not path.is_dir()]
    if driver is None:
        missing.append("its QEMU driver")
    if missing or driver is None:
        raise MachineryError(
            f"libvirt is not installed whole: {missing[0]} is missing",
            hint=how_to_install("libvirt-daemon-driver-qemu", "libvirt-daemon-system"),
        )
    return Program(Path(found), driver)


def _listed(look_up: Callable[[int], object], number: int) -> bool:
    """Whether a user or a group has a name."""
    try:
        look_up(number)
    except KeyError:
        return False
    return True


class LibvirtDaemon:
    """A libvirt daemon in its host's space.  ``folder`` is the host's own, in memory.

    ``compressor``: the program, by its name, by which it compresses a guest that is saved; None: it does not.
    """

    def __init__(
        self,
        program: Program,
        space: Space,
        folder: Path,
        memory: Path,
        logs: Path,
        compressor: str | None = None,
    ) -> None:
        self._compressor = compressor
        self._program = program
        self._space = space
        self._folder = folder
        self._memory = memory
        self.logs = logs
        self.socket = folder / "libvirt.sock"
        #: libvirt has two minds: root's daemon and an ordinary user's look for things in different places.
        self._root = os.geteuid() == 0

    @property
    def capabilities(self) -> Path:
        """Where the daemon keeps what it knows of QEMU binaries."""
        place = self._folder / "cache" / "qemu"
        return (place if self._root else place / "cache") / "capabilities"

    @property
    def uri(self) -> str:
        """What a client connects to, from anywhere in the lab."""
        return self.uri_at(self.socket)

    def uri_at(self, socket: Path) -> str:
        """The daemon's URI by way of another socket, which stands in front of the daemon's own."""
        # A transport is named, so the client starts no daemon of its own.
        return f"qemu+unix:///{'system' if self._root else 'session'}?socket={socket}"

    def prepare(self) -> None:
        """Write folders and configuration."""
        for name in _PLACES:
            if name != "log":
                (self._folder / name).mkdir(mode=0o700)
        for folder in (self._folder / "empty", self._folder / "drivers"):
            folder.mkdir(mode=0o700)
        etc = self._folder / "etc"
        # libvirt cuts the names of its logs at blanks, colons and quotes: it is given one without.
        said = self._folder / "said"
        said.symlink_to(self.logs)
        config = _DAEMON_CONFIG.format(uuid=uuid.uuid4(), logs=said)
        (etc / f"{self._program.name}.conf").write_text(config)
        config = _QEMU_CONFIG.format(memory=self._memory) + (_ROOT_CONFIG if self._root else "")
        certificates = self._folder / CERTIFICATES
        if certificates.is_dir():
            config += f'migrate_tls_x509_cert_dir = "{certificates}"\nmigrate_tls_x509_verify = 1\n'
        if (self._folder / HUGEPAGES).is_dir():
            config += f'hugetlbfs_mount = "{self._folder / HUGEPAGES}"\n'
        if self._compressor is not None:
            config += f'save_image_format = "{self._compressor}"\n'
            found = shutil.which(self._compressor)
            if found is not None:
                (self._folder / "empty" / self._compressor).symlink_to(found)
        (etc / "qemu.conf").write_text(config)
        # The QEMU driver alone: the others look at all devices, networks and storage of the machine.
        (self._folder / "drivers" / self._program.driver.name).symlink_to(self._program.driver)
        (self.logs / "qemu").mkdir(exist_ok=True)
        if not self._root:
            (self._folder / "cache" / "qemu").mkdir(exist_ok=True)
            (self._folder / "cache" / "qemu" / "log").symlink_to(self.logs / "qemu")
            for name in _VARIABLES:
                (self._folder / "user" / name).mkdir(parents=True)
                (self._folder / "user" / name / "libvirt").symlink_to(self._folder / name)

    def start(self, ended: Callable[[int], None]) -> None:
        """Start it; ``ended`` is called, in a thread, with its exit status when it ends."""
        process = self._space.run(self._start)
        threading.Thread(target=lambda: ended(process.wait()), name="daemon-watch", daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._mount()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.socket))
            listener.listen(64)
            with (self.logs / "daemon.out").open("wb") as output:
                return subprocess.Popen(
                    ["/bin/sh", "-c", _HAND_OVER, "sh", *self._command()],
                    stdin=listener.fileno(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,
                    cwd="/",
                )

    def _mount(self) -> None:
        """Make the mounts of the host; root's daemon finds its folders by them."""
        # Refused in containers that hide parts of it.  The daemon then sees the outer network's
        # links in there, which it needs for none of what a lab does.
        with contextlib.suppress(PermissionError):
            kernel.mount("sysfs", "/sys", "sysfs", Mount.NOSUID | Mount.NODEV | Mount.NOEXEC)
        if (self._folder / HUGEPAGES).is_dir():
            # libvirt gives no huge pages without one, though the guest's are in no file of it.
            flags = Mount.NOSUID | Mount.NODEV | Mount.NOEXEC
            kernel.mount("hugepages", self._folder / HUGEPAGES, "hugetlbfs", flags)
        hosts = self._folder / "hosts"
        hosts.write_text(netns.HOSTS_FILE)
        # Saves the daemon a moment of asking name servers that are not there.
        with contextlib.suppress(FileNotFoundError):
            kernel.bind(hosts, "/etc/hosts")
        self._name_user()
        if self._root:
            _PLACES["run"].mkdir(exist_ok=True)
            for name, place in _PLACES.items():
                kernel.bind(self.logs if name == "log" else self._folder / name, place)

    def _name_user(self) -> None:
        """Libvirt looks its user and group up; containers run commands under numbers that are in no list."""
        user, group = os.getuid(), os.getgid()
        if not _listed(pwd.getpwuid, user):
            self._list("passwd", f"freepage:x:{user}:{group}::{self._folder}:/bin/sh")
        if not _listed(grp.getgrgid, group):
            self._list("group", f"freepage:x:{group}:")

    def _list(self, name: str, line: str) -> None:
        there, ours = Path("/etc", name), self._folder / name
        text = there.read_bytes() if there.exists() else b""
        ours.write_bytes(text + line.encode() + b"\n")
        with contextlib.suppress(FileNotFoundError):
            kernel.bind(ours, there)

    def _command(self) -> list[str]:
        return [str(self._program.path), "-p", str(self._folder / "daemon.pid")]

    def _environment(self) -> Mapping[str, str]:
        told = {} if self._root else _VARIABLES
        return {
            **{variable: str(self._folder / "user" / name) for name, variable in told.items()},
            # Empty but for a compressor: no probing of QEMUs that are installed, no dmidecode, no numad.
            "PATH": str(self._folder / "empty"),
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "LIBVIRT_DRIVER_DIR": str(self._folder / "drivers"),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": f"{self._program.name}.socket",
        }

    def last_words(self, lines: int = 20) -> tuple[str, ...]:
        """The ends of the daemon's log and of the newest QEMU log."""
        found: list[str] = []
        guests = sorted((self.logs / "qemu").glob("*.log"), key=lambda path: path.stat().st_mtime)
        for path in (self.logs / "daemon.out", self.logs / "daemon.log", *guests[-1:]):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            found += [f"{path.name}: {line}" for line in text.splitlines()[-lines:]]
        return tuple(found)


def libvirt_version() -> str:
    """The libvirt library's version; a lab's daemons are of this installation, too."""
    import libvirt

    number: int = libvirt.getVersion()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
