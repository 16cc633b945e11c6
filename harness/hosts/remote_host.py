# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine of the user's own as a host; see :mod:`harness.hosts.remote`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import FreepageError, HostLost, MachineryError
from harness.events import Deadline, EventStream
from harness.hosts.interface import Ends, Site, Sockets, Through
from harness.hosts.remote_deputy import DeputyClient
from harness.hosts.remote_files import bring, fetch
from harness.hosts.remote_fit import DaemonFacts, DeputyFacts, demand_machine, no_libvirt, working_socket
from harness.hosts.remote_memory import ORACLE, LookContext
from harness.hosts.remote_qemu import RemoteQemu, find_qemu
from harness.hosts.remote_ssh import SshConnection
from harness.scenario.remote_uri import RemoteUri

if TYPE_CHECKING:
    import subprocess

    import libvirt

    from harness.hosts.interface import Nic
    from harness.scenario.wire import WireConditions

#: Of a log so much is fetched.
_LOG_BYTES: Final = 1 << 24


class RemoteHost:
    """A machine that is reached by ssh.  ``examine()`` first; ``leave()`` last."""

    def __init__(
        self,
        name: str,
        remote: RemoteUri,
        ssh: SshConnection,
        deputy: DeputyClient,
        runtime_dir: Path,
        shared: LookContext,
        events: EventStream,
    ) -> None:
        self.name = name
        self.remote = remote
        self.deputy = deputy
        #: Where a guest that moves here is sent; a forwarded socket has a name of its own.
        self.migrate_uri = f"tcp://{remote.host}"
        self._ssh = ssh
        self._runtime_dir = runtime_dir
        self._shared = shared
        self._events = events
        self._connection: libvirt.virConnect | None = None
        self._facts: DeputyFacts | None = None
        self._daemon: DaemonFacts | None = None
        self._folder = ""
        self._placed: dict[Path, str] = {}
        self._guest_log: tuple[str, Path] | None = None
        self._left = False

    @property
    def uri(self) -> str:
        """The host's libvirt URI, for people."""
        return str(self.remote)

    @property
    def facts(self) -> DeputyFacts:
        """What the deputy says of the machine."""
        assert self._facts is not None
        return self._facts

    @property
    def daemon(self) -> DaemonFacts:
        """What libvirt says of the machine."""
        assert self._daemon is not None
        return self._daemon

    @property
    def nic(self) -> Nic | None:
        """None: the guest gets no network there, since none is the run's own."""
        return None

    @property
    def nics(self) -> tuple[Nic, ...]:
        """None, as well."""
        return ()

    def forget_announcements(self) -> None:
        """Nothing is announced of a guest without a NIC."""

    def announced(self, nic: Nic, deadline: Deadline) -> bool:  # noqa: ARG002 - as of any host
        """There is no such NIC."""
        raise MachineryError(f"the {self.name} has no NIC {nic.mac}")

    @property
    def site(self) -> Site:
        """RAM without a name, which no disk backs; and no confinement, since QEMU and its files are ours."""
        return Site(ram="memfd", unconfined=self.daemon.confining)

    # --- finding out whether it will do

    def examine(self) -> None:
        """Connect to libvirt there; raises, in words, if anything is missing."""
        header, _ = self.deputy.call("facts", session=self.remote.session)
        self._facts = DeputyFacts.of(header, self.remote.place)
        demand_machine(self._facts, self.remote)
        header, _ = self.deputy.call("greet")
        self._ssh.demand_forwarding(str(header.get("path")), self._runtime_dir / "greeter.sock")
        self._ssh.forward_here(self._runtime_dir / "libvirt.sock", self._libvirt_socket(self._facts))
        self.deputy.call("key", self._shared.key)
        self._connection = self._open()
        self._daemon = DaemonFacts.of(self._connection.getCapabilities())

    def _libvirt_socket(self, facts: DeputyFacts) -> str:
        if self.remote.socket is not None:
            header, _ = self.deputy.call("try-socket", path=self.remote.socket)
            named = {self.remote.socket: str(header.get("problem"))}
            if working_socket(named, self.remote) is None:
                raise no_libvirt(named, self.remote)
            return self.remote.socket
        found = working_socket(facts.sockets, self.remote)
        if found is None and self.remote.session:
            # libvirt's own client would start it, too.
            header, _ = self.deputy.call("session")
            sockets = header.get("sockets")
            if isinstance(sockets, Mapping):
                found = working_socket({str(k): str(v) for k, v in sockets.items()}, self.remote)
        if found is None:
            raise no_libvirt(facts.sockets, self.remote)
        return found

    def _open(self, through: Through | None = None) -> libvirt.virConnect:
        import libvirt

        from harness.hosts.loop import ensure_event_loop

        ensure_event_loop()
        kind = "session" if self.remote.session else "system"
        socket = self._runtime_dir / "libvirt.sock"
        if through is not None:
            socket = through(socket)
        try:
            return libvirt.open(f"qemu+unix:///{kind}?socket={socket}")
        except libvirt.libvirtError as error:
            if self.deputy.is_lost:
                raise self.deputy.lost() from error
            raise MachineryError(
                f"libvirt on {self.remote.place} refuses the connection: {error.get_error_message()}"
            ) from error

    @property
    def libvirt_version(self) -> str:
        """The version of the host's libvirt daemon."""
        return _version(self.connect().getLibVersion())

    def report(self) -> dict[str, object]:
        """What the result says of this machine."""
        facts = self.facts
        return {
            "uri": self.uri,
            "node": facts.node,
            "kernel": facts.kernel,
            "libvirt": self.libvirt_version,
            "python": facts.python,
            "cpus": facts.cpus,
        }

    # --- its place on that machine

    def make_folder(self, path: str) -> None:
        """Make the run's folder on the machine."""
        owner, group = self.daemon.owner or (0, 0)
        self.deputy.call("folder", path=path, owner=owner, group=group)
        self._folder = path

    def path_in_folder(self, name: str) -> str:
        """A file or socket of QEMU's in the run's folder."""
        return f"{self._folder}/qemu/{name}"

    def forward_here(self, name: str, here: Path) -> None:
        """Listen at ``here`` for QEMU's socket of this name."""
        self._ssh.forward_here(here, self.path_in_folder(name))

    def forward_there(self, name: str, here: Path) -> None:
        """Listen there, for QEMU to connect to us."""
        self._ssh.forward_there(self.path_in_folder(name), here)
        # The ssh server has made it for its user alone, and QEMU may be another.
        self.deputy.call("open-to-all", name=f"qemu/{name}")

    def bring(self, files: Mapping[str, Path]) -> None:
        """Copy files of ours there, each once."""
        for name, file in files.items():
            if file not in self._placed:
                self._placed[file] = f"{self._folder}/{bring(self.deputy, file, name)}"

    def path_of(self, file: Path) -> Path:
        """Where a file of ours is there; one that was not brought is that machine's own."""
        return Path(self._placed.get(file, str(file)))

    def expect_guest(self, guest: str, emulator: Path, logs: Path) -> None:
        """Tell the deputy what there will be to take away."""
        logs.mkdir(parents=True, exist_ok=True)
        header, _ = self.deputy.call("guest", name=guest, emulator=str(self.path_of(emulator)))
        self._guest_log = (str(header.get("log")), logs / "qemu.log")

    def arrive(self, name: str) -> Ends:
        """Sockets for a QEMU: it connects to us for console and control, we to it for the monitor."""
        folder = self._runtime_dir / name
        folder.mkdir(mode=0o700)
        ours = Sockets.below(folder)
        there = {kind: f"{name}-{kind}.sock" for kind in ("console", "control", "monitor")}
        self.forward_there(there["console"], ours.console)
        self.forward_there(there["control"], ours.control)
        self.forward_here(there["monitor"], ours.monitor)
        paths = {kind: Path(self.path_in_folder(file)) for kind, file in there.items()}
        return Ends(Sockets(**paths), ours)

    def record_path(self, record: Path) -> Path:
        """Where QEMU writes what is to be ``record`` here."""
        return Path(self.path_in_folder(record.name))

    def fetch_record(self, record: Path) -> None:
        """Copy what QEMU has written so far into ``record`` here; nothing is copied if there is nothing."""
        with contextlib.suppress(MachineryError):
            fetch(self.deputy, str(self.record_path(record)), record, purpose=ORACLE)

    # --- libvirt and QEMU

    def connect(self) -> libvirt.virConnect:
        """The connection to the host's libvirt daemon (one, shared)."""
        assert self._connection is not None
        return self._connection

    def open(self, through: Through | None = None) -> libvirt.virConnect:
        """A further connection, of the caller's own: for a call that blocks."""
        return self._open(through)

    def qemu(self, monitor: Path, pid: int) -> RemoteQemu:  # noqa: ARG002 - that is our ssh's
        """The QEMU whose monitor listens at that socket of ours."""
        name = f"{monitor.parent.name}-{monitor.stem}.sock"
        return find_qemu(self.deputy, self.path_in_folder(name), self._shared)

    def start_program(
        self,
        command: Sequence[str],
        inherited: int | None,  # noqa: ARG002
        log: Path,  # noqa: ARG002
    ) -> subprocess.Popen[bytes]:
        """A machine of the user's own runs no programs of ours; scenarios that need some are refused."""
        raise MachineryError(f"{command[0]} is not started on a machine of the user's own")

    def accepts(self, path: Path) -> bool:  # noqa: ARG002 - nothing of ours listens there
        """No program of ours waits for anybody there."""
        return False

    def set_wire(self, *, up: bool) -> None:
        """Raises: the network between the machines is not ours."""
        raise MachineryError(
            f"the network of the {self.name} ({self.remote.place}) is not ours to switch "
            + ("on" if up else "off"),
            hint="scenarios that do so run in the lab",
        )

    @property
    def address(self) -> str:
        """Its name, as the user gave it; the migration goes by :attr:`migrate_uri`."""
        return str(self.remote.place)

    def tap(self, onward: str, folder: Path) -> int:  # noqa: ARG002 - likewise
        """Raises, likewise."""
        raise MachineryError("the network between the machines is not ours to listen to")

    def reserve_port(self) -> socket.socket:
        """Raises, likewise."""
        raise MachineryError("the network between the machines is not ours to take ports of")

    def change_wire(self, conditions: WireConditions) -> None:  # noqa: ARG002 - likewise
        """Raises, likewise."""
        raise MachineryError("the network between the machines is not ours to change")

    def cut_wire(self, size: int, *, reset: bool) -> None:  # noqa: ARG002 - likewise
        """Raises, likewise."""
        raise MachineryError("the network between the machines is not ours to cut")

    def qemu_log(self, guest: str) -> Path:  # noqa: ARG002 - there is one
        """QEMU's own log, fetched as far as it can be."""
        if self._guest_log is None:
            return self._runtime_dir / "no.log"
        there, here = self._guest_log
        with contextlib.suppress(FreepageError, OSError):
            fetch(self.deputy, there, here, purpose="logs", most=_LOG_BYTES)
        return here

    def last_words(self, lines: int = 20) -> tuple[str, ...]:
        """The ends of what ssh and QEMU said."""
        said = [f"ssh: {line}" for line in self._ssh.said()[-lines:]]
        with contextlib.suppress(OSError):
            log = self.qemu_log("").read_text(errors="replace").splitlines()
            said += [f"qemu.log: {line}" for line in log[-lines:]]
        return tuple(said)

    def check(self) -> None:
        """Raise :class:`HostLost` if the connection, or libvirt behind it, has ended."""
        if self.deputy.is_lost:
            raise self.deputy.lost()
        if self._connection is not None and not self._connection.isAlive():
            raise HostLost(
                f"the {self.name}'s libvirt daemon on {self.remote.place} is gone",
                last_lines=self.last_words(),
            )

    def keep_capabilities(self) -> None:
        """Keep nothing: what the daemon has learnt about QEMU is removed with the run."""

    def leave(self) -> None:
        """Have all of the run removed there, and say what could not be.  A second call does nothing."""
        if self._left:
            return
        self._left = True
        self.qemu_log("")
        self._events.emit("remote-bytes", source=self.name, **self.deputy.bytes_by_verb)
        if self._connection is not None:
            with contextlib.suppress(Exception):  # libvirt's; it may be gone
                self._connection.close()
        try:
            header, _ = self.deputy.call("leave")
        except FreepageError as error:
            self._events.emit("message", text=error.message)
            return
        left = header.get("left")
        for what in left if isinstance(left, list) else ():
            self._events.emit("warning", text=f"left behind on {self.remote.place}: {what}")


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
