# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run needs of a host, wherever it is.

A lab's hosts (:mod:`harness.hosts.lab`) and remote ones (:mod:`harness.hosts.remote`)
have this interface.  Code that boots and migrates guests knows nothing else of a host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from harness.memory.access import Image
from harness.memory.qemu_ram import BlockPlace

if TYPE_CHECKING:
    import socket
    import subprocess

    import libvirt

    from harness.events import Deadline
    from harness.scenario.wire import WireConditions


class QemuProcess(Protocol):
    """The QEMU of a host: a process, which may be on another machine."""

    @property
    def pid(self) -> int:
        """The process id, on the machine where QEMU runs."""

    @property
    def here(self) -> bool:
        """Whether QEMU runs on this machine, so that ``/proc`` has it."""

    def command(self) -> Sequence[str]:
        """QEMU's command line."""

    def open(self, blocks: Sequence[BlockPlace]) -> Mapping[str, Image]:
        """Open the RAMBlocks that are files: their contents stay readable when QEMU has gone."""

    def copy(self, blocks: Sequence[BlockPlace]) -> Mapping[str, Image | OSError]:
        """Copy RAMBlocks that are in no file out of QEMU; exact while the guest stands still."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The sockets of one QEMU: as it knows them, and as we do."""

    qemu: Sockets
    ours: Sockets


#: Stands in front of a daemon: gets the socket at which that listens, gives the one to connect to instead.
Through: TypeAlias = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Site:
    """What a host wants of every domain; see :class:`harness.guest.domain.DomainSpec`."""

    ram: Literal["file", "memfd"] = "file"
    unconfined: tuple[str, ...] = ()
    #: Certificates and keys for encrypted migrations, where QEMU there finds them; None: there are none.
    credentials: Path | None = None


class Host(Protocol):
    """One side of a migration."""

    @property
    def name(self) -> str:
        """``source`` or ``destination``."""

    @property
    def uri(self) -> str:
        """The host's libvirt URI, for people."""

    @property
    def migrate_uri(self) -> str:
        """Where a guest that moves here is sent."""

    @property
    def address(self) -> str:
        """The host on the migration network."""

    @property
    def nic(self) -> Nic | None:
        """How a guest's NIC is attached here, the first if it has several; None: it gets none."""

    @property
    def nics(self) -> tuple[Nic, ...]:
        """All of them."""

    def forget_announcements(self) -> None:
        """What was announced here is of no matter any more: a new QEMU is about to start."""

    def announced(self, nic: Nic, deadline: Deadline) -> bool:
        """Whether a QEMU here has announced the NIC to the network since; waits for it."""

    @property
    def site(self) -> Site:
        """What the host wants of every domain."""

    def arrive(self, name: str) -> Ends:
        """A QEMU is about to start here: sockets for it, below a new folder of that name."""

    def connect(self) -> libvirt.virConnect:
        """The connection to the host's libvirt daemon (one, shared)."""

    def open(self, through: Through | None = None) -> libvirt.virConnect:
        """A further connection, of the caller's own: for a call that blocks."""

    def path_of(self, file: Path) -> Path:
        """Where a file of ours is on that host; it was brought there."""

    def record_path(self, record: Path) -> Path:
        """Where QEMU writes, on that host, what is to be ``record`` here."""

    def fetch_record(self, record: Path) -> None:
        """Copy what QEMU has written so far into ``record`` here; nothing is copied if there is nothing."""

    def qemu(self, monitor: Path, pid: int) -> QemuProcess:
        """The QEMU whose monitor listens at that socket of ours; ``pid`` is the socket's other end."""

    def set_wire(self, *, up: bool) -> None:
        """Plug the migration network in or out; an error where it is not the run's own."""

    def start_program(
        self, command: Sequence[str], inherited: int | None, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program in the host's namespaces; it inherits a descriptor.  For a lab's hosts only."""

    def accepts(self, path: Path) -> bool:
        """Whether somebody in the host's namespaces listens at that Unix socket.  For a lab's hosts only."""

    def change_wire(self, conditions: WireConditions) -> None:
        """Have the migration network be as said; an error where it does not pass through a relay of ours."""

    def cut_wire(self, size: int, *, reset: bool) -> None:
        """Let so many bytes more through it from the source, and nothing after them; likewise."""

    def tap(self, onward: str, folder: Path) -> int:
        """Have a tap carry connections to ``onward``, an address on the migration network.

        What comes from here is written to ``folder``.  The tap listens on this host's loopback at
        the port that is returned, and connects to the same port there.
        """

    def reserve_port(self) -> socket.socket:
        """A port of this host's on the migration network that only those get who name it, until it is closed.

        For a lab's hosts only.
        """

    def qemu_log(self, guest: str) -> Path:
        """QEMU's own log, as far as we have it."""

    def last_words(self, lines: int = 20) -> tuple[str, ...]:
        """The ends of the logs, for an error message."""

    def check(self) -> None:
        """Raise :class:`harness.errors.HostLost` if the host has gone."""

    def keep_capabilities(self) -> None:
        """Keep for the next run what the daemon has learnt, where that is ours to keep."""


class Pair(Protocol):
    """The two hosts of a run, and a folder of ours for what both need."""

    @property
    def source(self) -> Host:
        """Where the guest starts."""

    @property
    def destination(self) -> Host:
        """Where the guest goes."""

    @property
    def hosts(self) -> Sequence[Host]:
        """Source and destination."""

    @property
    def runtime_dir(self) -> Path:
        """A private folder of the run, gone with it."""

    @property
    def memory_dir(self) -> Path | None:
        """A file system in memory that both hosts see; None where they are two machines."""

    @property
    def file_room(self) -> Path | None:
        """A small file system that both hosts see, for a guest that is saved; None: there is none."""

    @property
    def guest_name(self) -> str:
        """The guest's name: on a machine that is not ours, nobody else's."""

    def report(self) -> Mapping[str, object] | None:
        """What the result says of the hosts; None where they are this machine."""

    def bring(self, files: Mapping[str, Path]) -> None:
        """Make files of ours available on both hosts; see :meth:`Host.path_of`."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets of one QEMU.  Console and control are *ours*: they must listen before QEMU starts.

    ``monitor`` is QEMU's: it listens there by the time libvirt has started it.
    """

    console: Path
    control: Path
    monitor: Path

    @classmethod
    def below(cls, folder: Path) -> Sockets:
        """The sockets in this folder of a host."""
        return cls(folder / "console.sock", folder / "control.sock", folder / "monitor.sock")


@dataclass(frozen=True, slots=True)
class Nic:
    """How the guest's NIC is attached to a host: a tap, or datagrams where none may be made.

    ``ports`` are the relay's and QEMU's own, on the host's loopback; ``packets`` is the link that the relay
    takes frames from.  ``address``: the guest's, on the segment that both hosts share; ``lab``: the lab's
    own there.
    """

    mac: str
    tap: str | None
    ports: tuple[int, int] = (0, 0)
    address: str = ""
    packets: str = ""
    lab: str = ""
