# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's two hosts as machines that are reached by ssh, and by nothing else.

Each host gets an ssh server, an address on the guest's segment, and a /var/tmp of
its own.  What is reached through it is a libvirt daemon in its usual place.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.events import Deadline, EventStream
from harness.hosts import kernel
from harness.hosts.kernel import Mount
from harness.hosts.lab import Lab, LabHost

PORT = 2222
ADDRESSES = {"source": "10.77.0.11", "destination": "10.77.0.12"}

SSHD = """\
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
{more}
"""

SSH_CLIENT = """\
Host *
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
"""


@dataclass(frozen=True)
class Ssh:
    """Both hosts, reachable."""

    lab: Lab
    folder: Path
    user: str
    kind: str

    def uri(self, name: str, *, user: str | None = None, query: str = "") -> str:
        return f"qemu+ssh://{user or self.user}@{ADDRESSES[name]}:{PORT}/{self.kind}{query}"

    def options(self, config: str = "config") -> list[str]:
        return [
            *("--source", self.uri("source"), "--destination", self.uri("destination")),
            *("--ssh-config", str(self.folder / config)),
        ]

    def settings(self) -> dict[str, object]:
        """The same as keys of a scenario."""
        return {
            "remote.source.uri": self.uri("source"),
            "remote.destination.uri": self.uri("destination"),
            "remote.ssh_config": str(self.folder / "config"),
        }

    def write_config(self, name: str, known: Path | str, more: str = "") -> None:
        (self.folder / name).write_text(SSH_CLIENT.format(folder=self.folder, known=known) + more)

    def host(self, name: str) -> LabHost:
        return self.lab.source if name == "source" else self.lab.destination

    def left(self) -> dict[str, dict[str, list[str]]]:
        """What there is on both hosts that a run might leave behind."""
        return {host.name: host.space.run(lambda host=host: _traces(host)) for host in self.lab.hosts}  # type: ignore[misc]

    def restart_sshd(self, name: str, more: str, port: int) -> subprocess.Popen[bytes]:
        """One more ssh server on a host, set up in another way."""
        return _start_sshd(self.host(name), self.folder, more, port)


def _traces(host: LabHost) -> dict[str, list[str]]:
    inode = os.stat("/proc/thread-self/ns/net").st_ino
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino == inode:
                    name = (entry / "comm").read_text().strip()
                    # The session's own processes come and go.
                    if name not in ("sshd", "sshd-session", "sshd-auth"):
                        processes.append(name)
    if os.geteuid() == 0:
        libvirt = ["/run/libvirt/qemu", "/var/log/libvirt/qemu", "/var/cache/libvirt", "/var/lib/libvirt"]
    else:
        libvirt = [str(host.runtime_dir / "libvirt" / name) for name in ("run", "cache", "lib")]
        libvirt.append(str(host.log_dir / "qemu"))
    found = {"processes": sorted(processes)}
    for place in ("/var/tmp", *libvirt):
        found[place] = sorted(path for path in _below(place) if not Path(path).is_socket())
    return found


def _below(place: str) -> Iterator[str]:
    """All files and folders; those that go away meanwhile are passed over."""
    for folder, folders, files in os.walk(place):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _start_sshd(host: LabHost, folder: Path, more: str = "", port: int = PORT) -> subprocess.Popen[bytes]:
    config = folder / f"sshd-{host.name}-{port}"
    address = ADDRESSES[host.name]
    config.write_text(SSHD.format(address=address, port=port, folder=folder, more=more))

    def start() -> subprocess.Popen[bytes]:
        log = (folder / f"{config.name}.log").open("wb")
        return subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            # The caller's Python with its packages is not what a machine has.
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(Path.home())},
        )

    process = host.space.run(start)
    _await(address, port, folder / f"{config.name}.log")
    return process


def _await(address: str, port: int, log: Path) -> None:
    """sshd says that it listens; nobody else tells."""
    import time

    deadline = Deadline(30, "the ssh server")
    while "Server listening" not in log.read_text():
        deadline.check()
        time.sleep(0.02)


def _become_machine(host: LabHost) -> None:
    from pyroute2.iproute.linux import IPRoute

    host.connect()
    _ = host.nic

    def inside() -> None:
        with IPRoute() as route:
            (bridge,) = route.link_lookup(ifname="br0")
            route.addr("add", index=bridge, address=ADDRESSES[host.name], prefixlen=24)
        kernel.mount("tmp", "/var/tmp", "tmpfs", Mount.NOSUID | Mount.NODEV, "mode=1777,size=1g")
        if os.geteuid() == 0:
            usual = Path("/run/libvirt/libvirt-sock")
        else:
            usual = host.runtime_dir / "libvirt" / "user" / "run" / "libvirt" / "libvirt-sock"
        usual.symlink_to(host.runtime_dir / "libvirt" / "libvirt.sock")

    host.space.run(inside)


@contextlib.contextmanager
def ssh_hosts(events: EventStream, folder: Path) -> Iterator[Ssh]:
    """Both hosts; ``folder`` for keys and configurations."""
    folder.mkdir(mode=0o700)
    root = os.geteuid() == 0
    keygen(folder / "host_key")
    keygen(folder / "user_key")
    keygen(folder / "other_key")
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(
        "".join(f"[{address}]:* {host_key}\n" for address in ADDRESSES.values())
    )
    if root:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd shuts its unprivileged part in
    with Lab(events, logs=folder / "hosts") as lab, contextlib.ExitStack() as stack:
        for host in lab.hosts:
            _become_machine(host)
            # Where an ordinary user's libvirt daemon was told to keep its things.
            user = host.runtime_dir / "libvirt" / "user"
            told = f"SetEnv XDG_RUNTIME_DIR={user / 'run'} XDG_CACHE_HOME={user / 'cache'}"
            more = "" if root else told
            process = _start_sshd(host, folder, more)
            stack.callback(process.wait)
            stack.callback(process.kill)
        ssh = Ssh(lab, folder, pwd.getpwuid(os.geteuid()).pw_name, "system" if root else "session")
        ssh.write_config("config", folder / "known_hosts")
        yield ssh
